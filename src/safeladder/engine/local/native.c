/* The parts of a decode step that are not matrix products, in fp32, for one thread.
 *
 * Compiled for the machine at first use (see native.py). Plain C99: loops over restrict pointers
 * with constant inner lengths, which compilers turn into vector code. The reduction order is
 * fixed by the compiler, so the same binary gives the same bits. No function allocates.
 */
#include <stdint.h>
#include <string.h>
#include <math.h>

#define LANES 16
typedef float vec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

/* exp(x) for x <= 0 to about 1e-7: 2^n * 2^f, f in [-1/2, 1/2] by a polynomial of degree 6.
 * Below the smallest normal number it is 0. */
static inline float exp_negative(float x) {
    float y = x * 1.44269504088896341f;
    float visible = y < -126.0f ? 0.0f : 1.0f;
    y = y < -126.0f ? -126.0f : y;
    float n = rintf(y);
    float f = y - n;
    float p = 1.5353362e-4f;
    p = p * f + 1.3398874e-3f;
    p = p * f + 9.6184373e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    union { int32_t i; float f; } scale = {((int32_t)n + 127) << 23};
    return visible * p * scale.f;
}

static inline float sum_of_squares(const float *restrict x, int64_t n) {
    float total = 0.0f;
    for (int64_t i = 0; i < n; i++) total += x[i] * x[i];
    return total;
}

/* out = x / sqrt(mean(x^2) + eps) * weight, row by row. */
void safeladder_rms_norm(const float *restrict x, const float *restrict weight,
                         float *restrict out, int64_t rows, int64_t width, float eps) {
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * width;
        float *to = out + r * width;
        float scale = 1.0f / sqrtf(sum_of_squares(in, width) / (float)width + eps);
        for (int64_t i = 0; i < width; i++) to[i] = in[i] * scale * weight[i];
    }
}

/* out = silu(gate) * up; each row of gate_up is (gate, up), each of `width`. */
void safeladder_silu_mul(const float *restrict gate_up, float *restrict out,
                         int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict gate = gate_up + 2 * r * width;
        const float *restrict up = gate + width;
        float *restrict to = out + r * width;
        for (int64_t i = 0; i < width; i++) {
            float g = gate[i];
            /* sigmoid through exp(-|g|), which cannot overflow */
            float e = exp_negative(g < 0 ? g : -g);
            float s = (g < 0 ? e : 1.0f) / (1.0f + e);
            to[i] = g * s * up[i];
        }
    }
}

/* RMSNorm of one head (if weight) and rotation by its position. */
static inline void norm_and_rotate(const float *restrict x, const float *restrict weight,
                                   const float *restrict cos, const float *restrict sin,
                                   float factor, float eps, int64_t dim, float *restrict out) {
    float y[512];
    float scale = factor;
    if (weight) {
        scale /= sqrtf(sum_of_squares(x, dim) / (float)dim + eps);
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
    } else {
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale;
    }
    int64_t half = dim / 2;
    /* the sine table carries the sign of rotate_half */
    for (int64_t i = 0; i < half; i++) out[i] = y[i] * cos[i] + y[i + half] * sin[i];
    for (int64_t i = half; i < dim; i++) out[i] = y[i] * cos[i] + y[i - half] * sin[i];
}

#define LINE (64 / (int64_t)sizeof(float))

static inline __attribute__((always_inline)) void prefetch(const float *from, const int64_t dim) {
    for (int64_t d = 0; d < dim; d += LINE) __builtin_prefetch(from + d);
}

/* Scores of a pair of queries with `length` keys (length, dim). The values at the same positions
 * are fetched meanwhile: most of the time here is waiting for memory. */
static inline __attribute__((always_inline)) void score_pair(
        const float *restrict q0, const float *restrict q1, const float *restrict keys,
        const float *values, int64_t length, const int64_t dim,
        float *restrict to0, float *restrict to1) {
    for (int64_t s = 0; s < length; s++) {
        const float *restrict key = keys + s * dim;
        float a = 0.0f, b = 0.0f;
        prefetch(values + s * dim, dim);
        for (int64_t d = 0; d < dim; d++) a += q0[d] * key[d];
        for (int64_t d = 0; d < dim; d++) b += q1[d] * key[d];
        to0[s] = a;
        to1[s] = b;
    }
}

/* softmax of the first `length` of `padded` scores; the rest becomes 0. */
static inline void softmax(float *restrict row, int64_t length, int64_t padded) {
    float top = row[0];
    for (int64_t s = 1; s < length; s++) top = row[s] > top ? row[s] : top;
    for (int64_t s = length; s < padded; s++) row[s] = top - 1000.0f;
    float total = 0.0f;
    for (int64_t s = 0; s < padded; s++) {
        row[s] = exp_negative(row[s] - top);
        total += row[s];
    }
    float inverse = 1.0f / total;
    for (int64_t s = 0; s < padded; s++) row[s] *= inverse;
}

/* Weighted sums of the values for a pair of queries; `next` is fetched meanwhile. */
static inline __attribute__((always_inline)) void mix_pair(
        const float *restrict p0, const float *restrict p1, const float *restrict values,
        const float *next, int64_t length, const int64_t dim,
        float *restrict to0, float *restrict to1) {
    int64_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        vec a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0};
        for (int64_t s = 0; s < length; s++) {
            prefetch(next + s * dim + d, 2 * LANES);
            vec v0 = load(values + s * dim + d), v1 = load(values + s * dim + d + LANES);
            a0 += p0[s] * v0;
            a1 += p0[s] * v1;
            b0 += p1[s] * v0;
            b1 += p1[s] * v1;
        }
        store(to0 + d, a0);
        store(to0 + d + LANES, a1);
        store(to1 + d, b0);
        store(to1 + d + LANES, b1);
    }
    if (d == dim) return;
    float a[2 * LANES] = {0}, b[2 * LANES] = {0};
    for (int64_t s = 0; s < length; s++) {
        for (int64_t i = d; i < dim; i++) {
            a[i - d] += p0[s] * values[s * dim + i];
            b[i - d] += p1[s] * values[s * dim + i];
        }
    }
    memcpy(to0 + d, a, (size_t)(dim - d) * sizeof(float));
    memcpy(to1 + d, b, (size_t)(dim - d) * sizeof(float));
}

/* Attention of `groups` queries over the same keys and values (length, dim). `next` are the keys
 * that will be read after these. */
static inline __attribute__((always_inline)) void attend_head(
        const float *restrict q, const float *restrict keys, const float *restrict values,
        const float *next, int64_t length, int64_t groups, const int64_t dim,
        float *restrict scores, float *restrict out) {
    int64_t padded = (length + LANES - 1) / LANES * LANES;
    for (int64_t g = 0; g < groups; g += 2) {
        /* an odd last query is its own partner */
        int64_t other = g + 1 < groups ? g + 1 : g;
        float *s0 = scores, *s1 = scores + (other - g) * padded;
        score_pair(q + g * dim, q + other * dim, keys, values, length, dim, s0, s1);
        softmax(s0, length, padded);
        if (other > g) softmax(s1, length, padded);
        mix_pair(s0, s1, values, next, length, dim, out + g * dim, out + other * dim);
    }
}

typedef struct {
    int64_t rows, heads, kv_heads, dim;
    int64_t end;                    /* the open column is end - 1 */
    int64_t columns;                /* allocated */
    float eps, scaling;
} safeladder_shape;

/* One layer's attention for `rows` rows: normalise and rotate queries and keys, write the open
 * column, attend from each row's first column to the open one.
 *
 * qkv (rows, heads + 2 * kv_heads, dim); qk_weight (heads + kv_heads, dim) or NULL; cos and sin
 * (positions, dim); starts (rows,); offsets (rows,) of positions from columns, or NULL; keys and
 * values (rows, kv_heads, columns, dim); out (rows, heads, dim). dim is even and at most 512;
 * scratch has room for (heads / kv_heads) * dim + 2 * (columns + LANES) floats.
 */
void safeladder_attend(const safeladder_shape *shape, const float *restrict qkv,
                       const float *restrict qk_weight, const float *restrict cos,
                       const float *restrict sin, const int64_t *restrict starts,
                       const int64_t *restrict offsets,
                       float *restrict keys, float *restrict values, float *restrict scratch,
                       float *restrict out) {
    const int64_t dim = shape->dim, heads = shape->heads, kv_heads = shape->kv_heads;
    const int64_t groups = heads / kv_heads, open = shape->end - 1;
    const int64_t head_size = dim * shape->columns, num_heads = shape->rows * kv_heads;
    float *q = scratch, *scores = q + groups * dim;
    for (int64_t i = 0; i < num_heads; i++) {
        const int64_t r = i / kv_heads, h = i % kv_heads;
        const int64_t start = starts[r], length = open - start + 1;
        const int64_t position = open - start + (offsets ? offsets[r] : 0);
        const float *row = qkv + r * (heads + 2 * kv_heads) * dim;
        const float *row_cos = cos + position * dim, *row_sin = sin + position * dim;
        float *k_head = keys + i * head_size, *v_head = values + i * head_size;
        norm_and_rotate(row + (heads + h) * dim, qk_weight ? qk_weight + (heads + h) * dim : 0,
                        row_cos, row_sin, 1.0f, shape->eps, dim, k_head + open * dim);
        memcpy(v_head + open * dim, row + (heads + kv_heads + h) * dim,
               (size_t)dim * sizeof(float));
        for (int64_t g = 0; g < groups; g++) {
            int64_t head = h * groups + g;
            norm_and_rotate(row + head * dim, qk_weight ? qk_weight + head * dim : 0,
                            row_cos, row_sin, shape->scaling, shape->eps, dim, q + g * dim);
        }
        const float *k = k_head + start * dim, *v = v_head + start * dim;
        const float *next = i + 1 < num_heads
            ? keys + (i + 1) * head_size + starts[(i + 1) / kv_heads] * dim : k;
        float *to = out + (r * heads + h * groups) * dim;
        /* constant sizes let the compiler unroll */
        if (dim == 32 && groups == 2)
            attend_head(q, k, v, next, length, 2, 32, scores, to);
        else if (dim == 32) attend_head(q, k, v, next, length, groups, 32, scores, to);
        else if (dim == 24) attend_head(q, k, v, next, length, groups, 24, scores, to);
        else if (dim == 64) attend_head(q, k, v, next, length, groups, 64, scores, to);
        else if (dim == 128) attend_head(q, k, v, next, length, groups, 128, scores, to);
        else attend_head(q, k, v, next, length, groups, dim, scores, to);
    }
}

static inline int is_finite(double x) {
    /* by its bits: the compiler is told that numbers are finite */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return ((bits >> 52) & 0x7ff) != 0x7ff;
}

/* One token per row: the most probable where `temperature` is 0, else the one at which the
 * cumulative probability, summed in fp64, passes `uniform`. logprobs are those of
 * softmax(logits / temperature), at temperature 1 for greedy rows. scratch has room for
 * `vocabulary` floats.
 * Returns 0, or 1 + the first row whose logits are not finite.
 */
int64_t safeladder_draw(const float *restrict logits, const float *restrict temperature,
                        const double *restrict uniform, int64_t rows, int64_t vocabulary,
                        float *restrict scratch, int64_t *restrict tokens,
                        float *restrict logprobs) {
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict row = logits + r * vocabulary;
        const int greedy = temperature[r] == 0.0f;
        const float inverse = greedy ? 1.0f : 1.0f / temperature[r];
        float top = row[0];
        for (int64_t i = 1; i < vocabulary; i++) top = row[i] > top ? row[i] : top;
        double total = 0.0;
        for (int64_t i = 0; i < vocabulary; i++) {
            scratch[i] = exp_negative((row[i] - top) * inverse);
            total += (double)scratch[i];
        }
        if (!is_finite(total) || !is_finite((double)top)) return r + 1;
        int64_t token = 0;
        if (greedy) {
            while (token < vocabulary - 1 && row[token] != top) token++;
        } else {
            double target = uniform[r] * total, cumulative = 0.0;
            for (int64_t i = 0; i < vocabulary; i++) {
                cumulative += (double)scratch[i];
                if (scratch[i] > 0.0f) token = i; /* rounding may leave the target unpassed */
                if (cumulative > target) break;
            }
        }
        tokens[r] = token;
        logprobs[r] = (float)((double)((row[token] - top) * inverse) - log(total));
    }
    return 0;
}
