"""`python -m gpunn.cli`."""

from gpunn.cli import main

if __name__ == "__main__":
    main()
