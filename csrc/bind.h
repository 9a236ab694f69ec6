#pragma once

#include <pybind11/pybind11.h>

// Each adds its part to the Python module.
void bind_spt_weights(pybind11::module_& m);
void bind_particle_step(pybind11::module_& m);
void bind_diffusion(pybind11::module_& m);
void bind_gaussian_conditional(pybind11::module_& m);
void bind_gaussian_whitening(pybind11::module_& m);
void bind_mlp_pack(pybind11::module_& m);
void bind_energy_mlp(pybind11::module_& m);
void bind_score_mlp(pybind11::module_& m);
void bind_score_matching(pybind11::module_& m);
void bind_dit_block(pybind11::module_& m);
void bind_proximal_recursion(pybind11::module_& m);
void bind_unrolled_attention(pybind11::module_& m);
