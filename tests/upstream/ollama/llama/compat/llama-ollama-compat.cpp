#include "llama-ollama-compat.h"

std::string llama_ollama_compat_key(const std::string & key) {
    return key == "general.arch" ? "general.architecture" : key;
}
