# The library's two targets. weft::weft is the headers; weft::compiled is the same headers with the common instantiations
# compiled once, which makes programs compile several times faster. Used in the source tree and by an installed package.

if(NOT DEFINED WEFT_INCLUDE_DIR)
  set(WEFT_INCLUDE_DIR ${CMAKE_CURRENT_SOURCE_DIR}/include)
  set(WEFT_SOURCE ${CMAKE_CURRENT_LIST_DIR}/weft.cpp)
endif()

add_library(weft INTERFACE)
add_library(weft::weft ALIAS weft)
target_compile_features(weft INTERFACE cxx_std_20)
target_include_directories(weft INTERFACE $<BUILD_INTERFACE:${WEFT_INCLUDE_DIR}> $<INSTALL_INTERFACE:include>)
# A multiplication and an addition are fused only where the source says so: the same bits wherever the compiler inlines them.
target_compile_options(weft INTERFACE -ffp-contract=off)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(weft INTERFACE Threads::Threads)

if(WEFT_OPENMP)
  find_package(OpenMP COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    target_link_libraries(weft INTERFACE OpenMP::OpenMP_CXX)
  else()
    message(WARNING "weft: OpenMP was not found, so kernels use one thread. For g++ it comes with the compiler; for clang install libomp-dev.")
  endif()
endif()

if(NOT WEFT_ONEDNN STREQUAL "OFF")
  find_path(WEFT_DNNL_INCLUDE dnnl.h)
  find_library(WEFT_DNNL_LIBRARY dnnl)
  if(WEFT_DNNL_INCLUDE AND WEFT_DNNL_LIBRARY)
    target_compile_definitions(weft INTERFACE WEFT_ONEDNN)
    target_include_directories(weft SYSTEM INTERFACE ${WEFT_DNNL_INCLUDE})
    target_link_libraries(weft INTERFACE ${WEFT_DNNL_LIBRARY})
  elseif(NOT WEFT_ONEDNN STREQUAL "AUTO")
    message(FATAL_ERROR "weft: oneDNN was not found. Install libdnnl-dev, or configure with -DWEFT_ONEDNN=OFF.")
  endif()
endif()

add_library(weft_compiled STATIC EXCLUDE_FROM_ALL ${WEFT_SOURCE})
add_library(weft::compiled ALIAS weft_compiled)
target_link_libraries(weft_compiled PUBLIC weft)
target_compile_definitions(weft_compiled INTERFACE WEFT_COMPILED)
target_compile_options(weft_compiled PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O2>)
