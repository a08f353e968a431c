"""The tests of the matrix, a module for each; `toolchain.validation.matrix` lists them."""
