# The library's targets. weft::weft is the headers; weft::compiled is the same headers with the common instantiations
# compiled once, which makes programs compile several times faster. Used in the source tree and by an installed package, which
# sets WEFT_INCLUDE_DIR and WEFT_SOURCE: both are built with the flags of the project that uses them.

if(NOT DEFINED WEFT_INCLUDE_DIR)
  set(WEFT_INCLUDE_DIR ${CMAKE_CURRENT_SOURCE_DIR}/include)
  set(WEFT_SOURCE ${CMAKE_CURRENT_LIST_DIR}/weft.cpp)
endif()
if(NOT DEFINED WEFT_OPENMP)
  set(WEFT_OPENMP ON)
endif()

add_library(weft INTERFACE)
add_library(weft::weft ALIAS weft)
target_compile_features(weft INTERFACE cxx_std_20)
target_include_directories(weft INTERFACE ${WEFT_INCLUDE_DIR})
# A multiplication and an addition are fused only where the source says so: the same bits wherever the compiler inlines them.
target_compile_options(weft INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

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

if(WEFT_ONEDNN)
  find_path(WEFT_DNNL_INCLUDE dnnl.h)
  find_library(WEFT_DNNL_LIBRARY dnnl)
  if(NOT WEFT_DNNL_INCLUDE OR NOT WEFT_DNNL_LIBRARY)
    message(FATAL_ERROR "weft: oneDNN was not found. Install libdnnl-dev, or configure with -DWEFT_ONEDNN=OFF.")
  endif()
  target_compile_definitions(weft INTERFACE WEFT_ONEDNN)
  target_include_directories(weft SYSTEM INTERFACE ${WEFT_DNNL_INCLUDE})
  target_link_libraries(weft INTERFACE ${WEFT_DNNL_LIBRARY})
endif()

# weft::mpi, for programs whose ranks are processes: weft/comm/world.hpp finds them.
if(NOT DEFINED WEFT_MPI)
  set(WEFT_MPI ON)
endif()
if(WEFT_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)
  find_package(MPI QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    add_library(weft_mpi INTERFACE)
    add_library(weft::mpi ALIAS weft_mpi)
    target_link_libraries(weft_mpi INTERFACE weft MPI::MPI_CXX)
    target_compile_definitions(weft_mpi INTERFACE WEFT_MPI)
  endif()
endif()

# Only weft/io and what includes it need these two; a program of tensors and ops builds without them.
find_path(WEFT_JSON_INCLUDE nlohmann/json.hpp)
find_path(WEFT_XXHASH_INCLUDE xxhash.h)
foreach(directory ${WEFT_JSON_INCLUDE} ${WEFT_XXHASH_INCLUDE})
  if(directory)
    target_include_directories(weft SYSTEM INTERFACE ${directory})
  endif()
endforeach()

# One file a part, so that several cores can compile them.
set(weft_parts "")
foreach(part bf16 float double model_float model_bf16 io integers)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/weft_compiled/${part}.cpp
       CONTENT "#define WEFT_PART_${part}\n#include \"@WEFT_SOURCE@\"\n" @ONLY)
  list(APPEND weft_parts ${CMAKE_CURRENT_BINARY_DIR}/weft_compiled/${part}.cpp)
endforeach()
add_library(weft_compiled STATIC EXCLUDE_FROM_ALL ${weft_parts})
add_library(weft::compiled ALIAS weft_compiled)
target_link_libraries(weft_compiled PUBLIC weft)
target_compile_definitions(weft_compiled INTERFACE WEFT_COMPILED)
target_compile_options(weft_compiled PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O2>)

# weft::cuda: the kernels of the GPU, for programs whose sources stay .cpp. They choose it with -DWEFT_DEVICE=cuda, or name the device.
if(WEFT_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  get_filename_component(WEFT_CUDA_SOURCE ${WEFT_SOURCE} DIRECTORY)
  file(GLOB weft_cuda_files CONFIGURE_DEPENDS ${WEFT_CUDA_SOURCE}/weft_cuda/*.cu)
  add_library(weft_cuda STATIC ${weft_cuda_files})
  add_library(weft::cuda ALIAS weft_cuda)
  target_link_libraries(weft_cuda PUBLIC weft CUDA::cudart CUDA::cublasLt)
  target_compile_definitions(weft_cuda INTERFACE WEFT_CUDA)
  # The host flags that change weft's inline namespace (core/config.hpp).
  separate_arguments(weft_host_flags UNIX_COMMAND "${CMAKE_CXX_FLAGS} ${OpenMP_CXX_FLAGS}")
  list(JOIN weft_host_flags "," weft_host_flags)
  target_compile_options(weft_cuda PRIVATE -std=c++20 --expt-relaxed-constexpr)  # as an option: CMake 3.25 does not know CUDA20
  if(weft_host_flags)
    target_compile_options(weft_cuda PRIVATE "SHELL:-Xcompiler ${weft_host_flags}")
  endif()
endif()
