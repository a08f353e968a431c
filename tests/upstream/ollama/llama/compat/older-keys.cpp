#include "older-keys.h"

std::string present_key(const std::string & key) {
    return key == "general.arch" ? "general.architecture" : key;
}
