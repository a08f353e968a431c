# Applies every *.patch below PATCH_DIR to the current directory, in the order of the files' names. One that can be
# reversed is there already and is passed over, so that configuring twice does no harm.
if(NOT DEFINED PATCH_DIR)
    message(FATAL_ERROR "PATCH_DIR is not set")
endif()
find_package(Git QUIET REQUIRED)

# git must not take this tree for a part of a repository that it happens to lie in
get_filename_component(_ceiling "${CMAKE_CURRENT_SOURCE_DIR}" DIRECTORY)
set(_git ${CMAKE_COMMAND} -E env "GIT_CEILING_DIRECTORIES=${_ceiling}" ${GIT_EXECUTABLE})

file(GLOB_RECURSE _paths "${PATCH_DIR}/*.patch")
set(_by_name)
foreach(_path IN LISTS _paths)
    get_filename_component(_name "${_path}" NAME)
    list(APPEND _by_name "${_name}|${_path}")
endforeach()
list(SORT _by_name)

foreach(_entry IN LISTS _by_name)
    string(REGEX REPLACE "^[^|]*\\|" "" _path "${_entry}")
    execute_process(COMMAND ${_git} apply --reverse --check "${_path}" RESULT_VARIABLE _absent OUTPUT_QUIET ERROR_QUIET)
    if(_absent)
        execute_process(COMMAND ${_git} apply --whitespace=nowarn "${_path}" RESULT_VARIABLE _failed)
        if(_failed)
            message(FATAL_ERROR "llama/compat: ${_path} does not apply")
        endif()
        message(STATUS "llama/compat: applied ${_path}")
    else()
        message(STATUS "llama/compat: ${_path} is there already")
    endif()
endforeach()
