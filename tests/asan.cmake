# Builds the chosen tests with the address and undefined-behaviour sanitizers, in a build tree of their own, and runs them.

execute_process(COMMAND ${CMAKE_COMMAND} --preset asan -S ${SOURCE} -B ${BINARY} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
                WORKING_DIRECTORY ${SOURCE} OUTPUT_QUIET RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: configuring with the sanitizers failed")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} --target weft_chosen_tests RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: the tests do not compile with the sanitizers")
endif()
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${BINARY} -L chosen --output-on-failure --no-tests=error -j 2 RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "weft: a test failed with the sanitizers")
endif()
