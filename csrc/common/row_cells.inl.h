// Access to the cells of a row, for kernels on rows of any length. Included after common/lanes.inl.h, in the same
// anonymous namespace; needs Simd of the instruction set (common/simd_<isa>.h).

// kWidth cells of one row, `left` of them real; nothing behind those is read or written.
struct Cells {
    std::int64_t left;

    [[gnu::always_inline]] inline V::Float load(const float* source) const {
        if (left >= kWidth) return V::load(source);
        return reinterpret_cast<V::Float>(Simd::load_first(source, left));
    }
    [[gnu::always_inline]] inline V::Byte load_bytes(const std::uint8_t* source) const {
        V::Byte bytes;
        if (left >= kWidth) {
            std::memcpy(&bytes, source, sizeof(bytes));
        } else {
            const auto first = Simd::bytes_first(source, left);
            static_assert(sizeof(first) == sizeof(bytes));
            std::memcpy(&bytes, &first, sizeof(bytes));
        }
        return bytes;
    }
    [[gnu::always_inline]] inline V::Int load_mask(const std::uint8_t* source) const {
        return __builtin_convertvector(load_bytes(source), V::Int) != V::Int{};
    }
    // Whether any of these bytes is set: far cheaper than looking into the lanes of a loaded mask.
    [[gnu::always_inline]] inline bool any_of(const std::uint8_t* source) const {
        const V::Byte bytes = load_bytes(source);
        std::uint64_t words[kWidth / 8];
        std::memcpy(words, &bytes, sizeof(words));
        std::uint64_t set = 0;
        for (const std::uint64_t word : words) set |= word;
        return set != 0;
    }
    [[gnu::always_inline]] inline void store(float* target, V::Float value) const {
        if (left >= kWidth) {
            V::store(target, value);
        } else {
            Simd::store_first(target, left, reinterpret_cast<Simd::Vec>(value));
        }
    }
};

// Sum of the lanes, by halves.
[[gnu::always_inline]] static inline float sum_lanes(V::Float value) {
    return Simd::sum(reinterpret_cast<Simd::Vec>(value));
}
