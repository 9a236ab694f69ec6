# The second module, `_cuda`: kernels for GPUs behind the same torch-free interfaces. It is loaded on first use only, and
# carries its CUDA runtime (static), so that it needs nothing but a driver.

# Sets `found` to what looks like a driver, or leaves it empty.
function(fastimpute_find_driver found)
    find_program(FASTIMPUTE_NVIDIA_SMI nvidia-smi)
    foreach(trace /dev/nvidiactl /proc/driver/nvidia/version "${FASTIMPUTE_NVIDIA_SMI}")
        if(EXISTS "${trace}")
            set(${found} "${trace}" PARENT_SCOPE)
            return()
        endif()
    endforeach()
    set(${found} "" PARENT_SCOPE)
endfunction()

if(NOT FASTIMPUTE_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "FASTIMPUTE_CUDA must be AUTO, ON or OFF, got ${FASTIMPUTE_CUDA}")
endif()
if(FASTIMPUTE_CUDA STREQUAL "OFF" OR FASTIMPUTE_SANITIZE)
    return()
endif()

if(FASTIMPUTE_CUDA STREQUAL "AUTO")
    fastimpute_find_driver(FASTIMPUTE_DRIVER)
    if(NOT FASTIMPUTE_DRIVER)
        message(STATUS "CUDA kernels: not built, no driver here (FASTIMPUTE_CUDA=ON builds them nevertheless)")
        return()
    endif()
endif()
find_program(FASTIMPUTE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT FASTIMPUTE_NVCC)
    if(FASTIMPUTE_CUDA STREQUAL "ON")
        message(FATAL_ERROR "FASTIMPUTE_CUDA=ON needs nvcc, which is neither on the PATH nor below CUDA_HOME or "
            "/usr/local/cuda; install the CUDA toolkit (13.0 is tested), or configure with FASTIMPUTE_CUDA=OFF")
    endif()
    message(STATUS "CUDA kernels: not built, no nvcc here")
    return()
endif()

set(CUDAToolkit_NVCC_EXECUTABLE "${FASTIMPUTE_NVCC}")
find_package(CUDAToolkit REQUIRED)
message(STATUS "CUDA kernels: built with ${FASTIMPUTE_NVCC} ${CUDAToolkit_VERSION}")

# nvcc is called directly: CMake 3.25 does not know that nvcc 13 speaks C++20, and testing the compiler takes as long as
# a kernel. Ampere; Hopper with its own instructions; and portable code that drivers of newer chips compile on first use,
# side by side, as one file takes longer than all others together.
set(FASTIMPUTE_NVCC_FLAGS -std=c++20 -O3 --expt-relaxed-constexpr --threads=3
    -Xcompiler=-fPIC,-fvisibility=hidden -ccbin "${CMAKE_CXX_COMPILER}"
    -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_90,code=compute_90)
file(GLOB FASTIMPUTE_KERNELS CONFIGURE_DEPENDS csrc/*/*.cu)
foreach(kernel ${FASTIMPUTE_KERNELS})
    get_filename_component(name "${kernel}" NAME_WE)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o")
    add_custom_command(OUTPUT "${object}"
        COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_CURRENT_BINARY_DIR}/cuda"
        COMMAND "${FASTIMPUTE_NVCC}" ${FASTIMPUTE_NVCC_FLAGS} -I "${CMAKE_CURRENT_SOURCE_DIR}/csrc"
            -MD -MF "${object}.d" -c "${kernel}" -o "${object}"
        DEPENDS "${kernel}" DEPFILE "${object}.d" COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND FASTIMPUTE_KERNEL_OBJECTS "${object}")
endforeach()

file(GLOB FASTIMPUTE_CUDA_SOURCES CONFIGURE_DEPENDS csrc/*_cuda.cpp csrc/*/*_cuda.cpp)
python_add_library(_cuda MODULE WITH_SOABI ${FASTIMPUTE_CUDA_SOURCES} ${FASTIMPUTE_KERNEL_OBJECTS}
    csrc/common/errors.cpp csrc/common/mlp_checks.cpp csrc/common/noise.cpp csrc/spt_weights/spt_weights_checks.cpp
    csrc/particle_step/particle_step_checks.cpp csrc/proximal_recursion/checks.cpp
    csrc/diffusion_step/diffusion_step_checks.cpp csrc/ball_quantile/ball_quantile_checks.cpp
    csrc/unrolled_attention/unrolled_attention_checks.cpp csrc/gaussian_conditional/gaussian_conditional_checks.cpp
    csrc/gaussian_whitening/gaussian_whitening_checks.cpp)
target_include_directories(_cuda PRIVATE csrc)
target_link_libraries(_cuda PRIVATE pybind11::headers CUDA::cudart_static)
target_compile_options(_cuda PRIVATE -O3 -Wall -Wextra -fvisibility=hidden)
install(TARGETS _cuda LIBRARY DESTINATION fastimpute)
