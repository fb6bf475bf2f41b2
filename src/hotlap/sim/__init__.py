"""Our own world: vehicles, cameras, and the kernels that step and render them."""
