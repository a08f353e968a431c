"""What our C, C++ and Objective-C use of llama.cpp's code, and whether a tree still has it in that form."""
