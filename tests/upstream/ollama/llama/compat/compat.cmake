# How llama.cpp is made to fit: patches that call into the sources beside them.
set(OLLAMA_LLAMA_CPP_COMPAT_DIR "${CMAKE_CURRENT_LIST_DIR}")
set(OLLAMA_LLAMA_CPP_COMPAT_PATCH_COMMAND
    ${CMAKE_COMMAND} -DPATCH_DIR=${OLLAMA_LLAMA_CPP_COMPAT_DIR} -P ${OLLAMA_LLAMA_CPP_COMPAT_DIR}/apply-patch.cmake)
