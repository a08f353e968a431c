#pragma once

#include <string>

// The name that llama.cpp has for a key of an older model file.
std::string llama_ollama_compat_key(const std::string & key);
