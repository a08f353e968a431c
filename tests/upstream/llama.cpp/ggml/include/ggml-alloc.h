// Memory for tensors is a matter of the backend.
#pragma once

#include "ggml-backend.h"
