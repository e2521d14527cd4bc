"""Students for where kdprune is not: a graph, or a folder that timm reads, compared with what it was made from."""
