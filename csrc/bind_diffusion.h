#pragma once

#include <pybind11/pybind11.h>

// The part of the binding that belongs to diffusion_step and ball_quantile.
void bind_diffusion(pybind11::module_& m);
