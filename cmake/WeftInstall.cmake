# `cmake --install`: headers, the sources of weft::compiled and weft::cuda, what find_package(weft) reads, and a pkg-config file. Nothing that is
# installed is compiled, so one installation serves every processor, compiler and set of flags.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(weft_package ${CMAKE_INSTALL_DATADIR}/cmake/weft)
set(weft_sources ${CMAKE_INSTALL_DATADIR}/weft)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/weft DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
install(FILES ${PROJECT_SOURCE_DIR}/cmake/weft.cpp DESTINATION ${weft_sources})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/cmake/weft_cuda DESTINATION ${weft_sources})
install(FILES ${PROJECT_SOURCE_DIR}/cmake/WeftTarget.cmake DESTINATION ${weft_package})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(INCLUDE_DIR ${CMAKE_INSTALL_INCLUDEDIR})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/weftConfig.cmake.in ${PROJECT_BINARY_DIR}/weftConfig.cmake
  INSTALL_DESTINATION ${weft_package} PATH_VARS INCLUDE_DIR weft_sources)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/weftConfigVersion.cmake COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/weftConfig.cmake ${PROJECT_BINARY_DIR}/weftConfigVersion.cmake DESTINATION ${weft_package})

# Without OpenMP or oneDNN a program that uses pkg-config leaves the flag out by giving its own.
configure_file(${CMAKE_CURRENT_LIST_DIR}/weft.pc.in ${PROJECT_BINARY_DIR}/weft.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/weft.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
