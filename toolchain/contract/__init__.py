"""The symbols of llama.cpp that our C, C++ and Objective-C use, and whether a tree still declares them so."""
