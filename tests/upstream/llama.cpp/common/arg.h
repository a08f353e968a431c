// The command line of llama-server.
#pragma once

#include "common.h"

// What the miniature knows of a command line; it passes over the rest. Throws std::runtime_error, which names the
// option that cannot be read.
common_params read_options(int count, char ** words);
