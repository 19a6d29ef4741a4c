"""CuPy on a CUDA device: the operations of `reference/` as kernels and products of cuBLASLt, captured as graphs."""
