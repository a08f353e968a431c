#pragma once

#include <string>

// What llama.cpp calls a key that an older model file has.
std::string present_key(const std::string & key);
