#include <cuda_runtime.h>

#include "common/driver.h"

namespace fastimpute::cuda {

std::optional<std::string> why_unusable() {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver is installed";
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status == cudaErrorInsufficientDriver) {
        const auto version = [](int code) {
            return std::to_string(code / 1000) + "." + std::to_string(code / 10 % 100);
        };
        return "the CUDA driver serves up to CUDA " + version(driver) + ", the kernels need " + version(CUDART_VERSION);
    }
    if (status != cudaSuccess)
        return std::string("the CUDA driver finds no device (") + cudaGetErrorString(status) + ")";
    if (devices == 0) return "the CUDA driver finds no device";
    return std::nullopt;
}

}  // namespace fastimpute::cuda
