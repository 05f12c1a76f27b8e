# LibTorch from the PyPI wheel, as imported targets.  find_package(Torch) would insist on a CUDA toolkit.
#
#   bulkhead::torch_cpu    libtorch_cpu and libc10, with their headers; loads no CUDA code
#   bulkhead::torch_cuda   the above, libtorch_cuda, libc10_cuda, the CUDA runtime and NCCL; only when BULKHEAD_HAVE_CUDA
#   bulkhead::gloo         the headers of gloo that the wheel leaves out (its symbols are in libtorch_cpu)

include_guard(GLOBAL)
set(BULKHEAD_TORCH_VERSION 2.11)

# ----- The CPU side -----
if(NOT EXISTS "${BULKHEAD_TORCH_DIR}/lib/libtorch_cpu.so" OR NOT EXISTS "${BULKHEAD_TORCH_DIR}/include/ATen/ATen.h")
  message(FATAL_ERROR "There is no torch in ${BULKHEAD_TORCH_DIR}: run scripts/setup, or pass -DBULKHEAD_TORCH_DIR=DIR "
                      "with the directory that holds include/ and lib/ of torch ${BULKHEAD_TORCH_VERSION}.")
endif()
file(REAL_PATH "${BULKHEAD_TORCH_DIR}" torch_dir)
file(STRINGS "${torch_dir}/include/torch/headeronly/version.h" torch_version_lines
     REGEX "^#define TORCH_VERSION_(MAJOR|MINOR) +[0-9]+")
string(REGEX REPLACE "[^0-9;]" "" torch_version "${torch_version_lines}")
string(REPLACE ";" "." torch_version "${torch_version}")
if(NOT torch_version STREQUAL BULKHEAD_TORCH_VERSION)
  message(FATAL_ERROR "${torch_dir} holds torch ${torch_version}, but bulkhead is built against "
                      "${BULKHEAD_TORCH_VERSION}: run scripts/setup, or pass another -DBULKHEAD_TORCH_DIR=DIR.")
endif()
get_filename_component(torch_nvidia_dir "${torch_dir}/../nvidia" ABSOLUTE)

add_library(bulkhead::torch_cpu INTERFACE IMPORTED GLOBAL)
# Behind the system's own directories: the wheel brings a copy of fmt that does not go with the system's spdlog.
target_compile_options(bulkhead::torch_cpu INTERFACE "SHELL:-idirafter \"${torch_dir}/include\""
                       "SHELL:-idirafter \"${torch_dir}/include/torch/csrc/api/include\"")
target_compile_definitions(bulkhead::torch_cpu INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
get_filename_component(torch_prelude "${CMAKE_CURRENT_LIST_DIR}/../../worker/torch_prelude.h" ABSOLUTE)
target_compile_options(bulkhead::torch_cpu INTERFACE "SHELL:-include \"${torch_prelude}\"")
target_link_libraries(bulkhead::torch_cpu INTERFACE "${torch_dir}/lib/libtorch_cpu.so" "${torch_dir}/lib/libc10.so")
# libtorch_cpu itself needs libcudart and libcupti of the nvidia wheels; it finds them by its own rpath when it
# is loaded, but the linker has to be told.
target_link_options(bulkhead::torch_cpu INTERFACE "LINKER:-rpath,${torch_dir}/lib"
                    "LINKER:-rpath-link,${torch_nvidia_dir}/cu13/lib")

find_path(BULKHEAD_GLOO_INCLUDE_DIR gloo/context.h)
mark_as_advanced(BULKHEAD_GLOO_INCLUDE_DIR)
if(NOT BULKHEAD_GLOO_INCLUDE_DIR)
  message(FATAL_ERROR "The gloo headers are missing: run scripts/setup, or install libgloo-dev.")
endif()
add_library(bulkhead::gloo INTERFACE IMPORTED GLOBAL)
target_include_directories(bulkhead::gloo SYSTEM INTERFACE "${BULKHEAD_GLOO_INCLUDE_DIR}")
target_compile_definitions(bulkhead::gloo INTERFACE USE_C10D_GLOO)

# ----- The CUDA side -----
# Everything comes from the wheels beside torch, never from an installed toolkit: libtorch_cuda finds its libraries
# there and nowhere else, and one process must not hold two versions of them.
set(torch_cuda_missing "")
foreach(lib torch_cuda c10_cuda)
  if(NOT EXISTS "${torch_dir}/lib/lib${lib}.so")
    list(APPEND torch_cuda_missing "lib${lib}.so")
  endif()
endforeach()
set(torch_cuda_includes "")
if(NOT BULKHEAD_CUDA STREQUAL "OFF")
  foreach(header cuda_runtime_api.h cublas_v2.h cusparse.h cusolverDn.h nccl.h)
    string(MAKE_C_IDENTIFIER "BULKHEAD_DIR_OF_${header}" variable)
    find_path(${variable} ${header} HINTS "${torch_nvidia_dir}/cu13/include" "${torch_nvidia_dir}/nccl/include"
              NO_DEFAULT_PATH)
    mark_as_advanced(${variable})
    if(${variable})
      list(APPEND torch_cuda_includes "${${variable}}")
    else()
      list(APPEND torch_cuda_missing ${header})
    endif()
  endforeach()
  # The one header family that the runtime wheel leaves out; a toolkit of the same major version has it too.
  find_path(BULKHEAD_DIR_OF_crt crt/host_config.h
            HINTS "${torch_nvidia_dir}/cu13/include" "$ENV{CUDA_HOME}/include" /usr/local/cuda/include)
  mark_as_advanced(BULKHEAD_DIR_OF_crt)
  if(BULKHEAD_DIR_OF_crt)
    list(APPEND torch_cuda_includes "${BULKHEAD_DIR_OF_crt}")
  else()
    list(APPEND torch_cuda_missing crt/host_config.h)
  endif()
  foreach(lib cudart.so.13 nccl.so.2 cublas.so.13 cudnn.so.9)
    string(MAKE_C_IDENTIFIER "BULKHEAD_PATH_OF_${lib}" variable)
    find_file(${variable} lib${lib}
              HINTS "${torch_nvidia_dir}/cu13/lib" "${torch_nvidia_dir}/nccl/lib" "${torch_nvidia_dir}/cudnn/lib"
              NO_DEFAULT_PATH)
    mark_as_advanced(${variable})
    if(NOT ${variable})
      list(APPEND torch_cuda_missing lib${lib})
    endif()
  endforeach()
endif()

set(BULKHEAD_HAVE_CUDA OFF)
if(BULKHEAD_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: off")
elseif(NOT torch_cuda_missing)
  set(BULKHEAD_HAVE_CUDA ON)
  message(STATUS "CUDA: on")
elseif(BULKHEAD_CUDA STREQUAL "ON")
  list(JOIN torch_cuda_missing ", " torch_cuda_missing)
  message(FATAL_ERROR "BULKHEAD_CUDA=ON, but these are missing beside ${torch_dir}: ${torch_cuda_missing}. "
                      "Run scripts/setup --cuda, or pass -DBULKHEAD_CUDA=OFF.")
else()
  list(JOIN torch_cuda_missing ", " torch_cuda_missing)
  message(STATUS "CUDA: off (not found: ${torch_cuda_missing})")
endif()

# Our own kernels want nvcc, of the same major version as the wheels' runtime.
set(BULKHEAD_HAVE_KERNELS OFF)
if(BULKHEAD_HAVE_CUDA)
  find_program(BULKHEAD_NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin)
  mark_as_advanced(BULKHEAD_NVCC)
  find_file(BULKHEAD_PATH_OF_cublasLt_so_13 libcublasLt.so.13 HINTS "${torch_nvidia_dir}/cu13/lib" NO_DEFAULT_PATH)
  mark_as_advanced(BULKHEAD_PATH_OF_cublasLt_so_13)
  find_path(BULKHEAD_DIR_OF_cublasLt_h cublasLt.h HINTS ${torch_cuda_includes} NO_DEFAULT_PATH)
  mark_as_advanced(BULKHEAD_DIR_OF_cublasLt_h)
  if(BULKHEAD_NVCC AND BULKHEAD_PATH_OF_cublasLt_so_13 AND BULKHEAD_DIR_OF_cublasLt_h)
    set(CMAKE_CUDA_COMPILER "${BULKHEAD_NVCC}")
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # the wheel's, which torch_cuda links
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80 90)
    endif()
    enable_language(CUDA)
    set(BULKHEAD_HAVE_KERNELS ON)
    message(STATUS "CUDA kernels: on")
  else()
    message(STATUS "CUDA kernels: off (they need nvcc, libcublasLt.so.13 and cublasLt.h)")
  endif()
endif()

if(BULKHEAD_HAVE_CUDA)
  list(REMOVE_DUPLICATES torch_cuda_includes)
  get_filename_component(torch_cudart_dir "${BULKHEAD_PATH_OF_cudart_so_13}" DIRECTORY)
  get_filename_component(torch_nccl_dir "${BULKHEAD_PATH_OF_nccl_so_2}" DIRECTORY)
  add_library(bulkhead::torch_cuda INTERFACE IMPORTED GLOBAL)
  target_include_directories(bulkhead::torch_cuda SYSTEM INTERFACE ${torch_cuda_includes})
  target_compile_definitions(bulkhead::torch_cuda INTERFACE USE_C10D_NCCL)
  # libtorch_cuda registers its kernels when it is loaded, so it must stay even if nothing refers to it.
  target_link_libraries(bulkhead::torch_cuda INTERFACE
    "-Wl,--push-state,--no-as-needed,${torch_dir}/lib/libtorch_cuda.so,${torch_dir}/lib/libc10_cuda.so,--pop-state"
    "${BULKHEAD_PATH_OF_cudart_so_13}" "${BULKHEAD_PATH_OF_nccl_so_2}" bulkhead::torch_cpu)
  target_link_options(bulkhead::torch_cuda INTERFACE "LINKER:-rpath,${torch_cudart_dir}" "LINKER:-rpath,${torch_nccl_dir}")
  foreach(wheel cudnn cusparselt nvshmem)
    target_link_options(bulkhead::torch_cuda INTERFACE "LINKER:-rpath-link,${torch_nvidia_dir}/${wheel}/lib")
  endforeach()
endif()
