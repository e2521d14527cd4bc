"""Students and teachers.

`import kdprune.models` registers kdprune's own networks (`cifar_resnet*`, `mlp_*`) in timm.
"""

from kdprune.models import cifar_resnet, mlp

__all__ = ["cifar_resnet", "mlp"]
