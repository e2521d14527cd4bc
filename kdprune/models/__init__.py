"""Students and teachers.

`import kdprune.models` registers kdprune's own networks (`cifar_resnet*`, `cifar_vgg*`, `cifar_wrn*`, `mlp_*`,
`lenet_300_100`) in timm.
"""

from kdprune.models import cifar_resnet, cifar_vgg, cifar_wrn, mlp

__all__ = ["cifar_resnet", "cifar_vgg", "cifar_wrn", "mlp"]
