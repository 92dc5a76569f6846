# Compiles every header alone, and a program of everything, with clang.

execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G Ninja -DCMAKE_CXX_COMPILER=${CLANG} -DCMAKE_BUILD_TYPE=Debug
                        -DWEFT_BUILD_EXAMPLES=OFF -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} OUTPUT_QUIET RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: configuring with ${CLANG} failed")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} --target weft_headers together_headers RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: the headers do not compile with ${CLANG}")
endif()
execute_process(COMMAND ${BINARY}/tests/headers/together_headers RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: the program that ${CLANG} made failed")
endif()
