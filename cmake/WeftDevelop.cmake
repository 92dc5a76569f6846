# How weft's own tests, examples and benchmarks are built: every warning is an error, and with WEFT_SANITIZE every memory error
# and undefined behaviour ends the program.

add_library(weft_develop INTERFACE)
target_compile_options(weft_develop INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(weft_develop INTERFACE -Wno-restrict)  # at -O3 it warns of the inside of std::string's operator+
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(weft_develop INTERFACE -Wno-pass-failed)  # double exp is a call of libm, which no vector pragma can change
endif()
if(WEFT_SANITIZE)
  target_compile_options(weft_develop INTERFACE -Wno-maybe-uninitialized)  # as gcc's manual advises: it warns of the checks themselves
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  target_compile_options(weft_compiled PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
endif()
