# The build rules of the whole tree, in one place: one set of flags and three functions.

include_guard(GLOBAL)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

# ----- Flags: standard, warnings, sanitizers -----
add_library(bulkhead_flags INTERFACE)
target_compile_features(bulkhead_flags INTERFACE cxx_std_20)
target_compile_options(bulkhead_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Both fire on standard library code that g++ 12 and 13 inline, not on ours.
  target_compile_options(bulkhead_flags INTERFACE -Wno-restrict -Wno-stringop-overflow)
endif()
if(BULKHEAD_SANITIZE)
  if(BULKHEAD_SANITIZE MATCHES "address" AND BULKHEAD_SANITIZE MATCHES "thread")
    message(FATAL_ERROR "BULKHEAD_SANITIZE: address and thread cannot be combined")
  endif()
  target_compile_options(bulkhead_flags INTERFACE -fsanitize=${BULKHEAD_SANITIZE} -fno-omit-frame-pointer
                                                  -fno-sanitize-recover=all)
  target_link_options(bulkhead_flags INTERFACE -fsanitize=${BULKHEAD_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(bulkhead_flags INTERFACE -Wno-maybe-uninitialized)  # the checks' own code sets it off
  endif()
endif()

# bulkhead_library(NAME SOURCES … [HEADERS …] [INCLUDE dir] [DEPS …] [PRIVATE_DEPS …])
# A static library bulkhead_NAME with alias bulkhead::NAME.  HEADERS are public and must each compile alone.
function(bulkhead_library name)
  cmake_parse_arguments(ARG "" "INCLUDE" "SOURCES;HEADERS;DEPS;PRIVATE_DEPS" ${ARGN})
  set(target bulkhead_${name})
  if(NOT ARG_INCLUDE)
    set(ARG_INCLUDE "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(bulkhead::${name} ALIAS ${target})
  target_sources(${target} PUBLIC FILE_SET HEADERS BASE_DIRS "${ARG_INCLUDE}" FILES ${ARG_HEADERS})
  set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  target_link_libraries(${target} PUBLIC ${ARG_DEPS} PRIVATE bulkhead_flags ${ARG_PRIVATE_DEPS})
  target_compile_features(${target} PUBLIC cxx_std_20)
endfunction()

# bulkhead_plugin(NAME source)
# A shipped C++ plugin: build/<preset>/plugins/NAME.so, found by `use: NAME` and `use: NAME.so`.
function(bulkhead_plugin name source)
  add_library(plugin_${name} MODULE ${source})
  target_link_libraries(plugin_${name} PRIVATE bulkhead::sdk bulkhead_flags)
  set_target_properties(plugin_${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name} CXX_VISIBILITY_PRESET hidden
                                                  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/plugins")
endfunction()

# bulkhead_test(LABEL file.cpp DEPS …)
# One gtest program; each TEST is its own ctest entry under LABEL.
function(bulkhead_test label file)
  cmake_parse_arguments(ARG "" "TIMEOUT" "DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  get_filename_component(stem "${file}" NAME_WE)
  string(REGEX REPLACE "[^A-Za-z0-9]" "_" where "${file}")
  set(target "test_${where}")
  add_executable(${target} ${file})
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} bulkhead_flags GTest::gtest GTest::gtest_main)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(${target} PRIVATE BULKHEAD_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                                               BULKHEAD_BUILD_DIR="${CMAKE_BINARY_DIR}"
                                               BULKHEAD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${target} TEST_PREFIX "${label}/" DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT})
endfunction()
