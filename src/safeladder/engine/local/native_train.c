/* The parts of a training step that are not matrix products, in fp32, for one thread.
 *
 * Compiled for the machine at first use (see native.py). Every function passes over its data once
 * and allocates nothing. The order of sums is fixed by the compiler, so the same binary gives the
 * same bits.
 *
 * A block is a rectangle of attention: `rows` rows of at most `width` tokens each, whose keys have
 * `room` columns for a prefix in front and `columns` >= room + width in all. Row r has lengths[r]
 * tokens, of which the first is starts[r] in the flat arrays and stands at position firsts[r]; its
 * prefix has prefixes[r] <= room tokens and is that of family families[r].
 *
 *   flat      qkv (tokens, (heads + 2 kv_heads) * dim), attended (tokens, heads * dim)
 *   queries   (rows, heads, width, dim)
 *   keys      (rows, kv_heads, columns, dim), values alike
 *   weights   (rows, heads, width, columns)
 *   rotation  (positions, dim / 2) pairs of cosine and sine
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_DIM 512

typedef struct {
    int64_t rows, heads, kv_heads, dim, width, room, columns;
    const int64_t *starts, *lengths, *firsts, *prefixes, *families;
    float eps;
} block;

/* exp(x) for x <= 0 to about 1e-7, and 0 below -87: 2^n * 2^f, f in [-1/2, 1/2]. */
static inline float exp_negative(float x) {
    float y = x * 1.44269504088896341f;
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
    return x < -87.0f ? 0.0f : p * scale.f;
}

static inline float sigmoid(float x) {
    float e = exp_negative(x < 0 ? x : -x); /* exp(-|x|) cannot overflow */
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

static inline float dot(const float *restrict a, const float *restrict b, int64_t n) {
    float total = 0.0f;
    for (int64_t i = 0; i < n; i++) total += a[i] * b[i];
    return total;
}

static inline void zero(float *to, int64_t count) {
    if (count > 0) memset(to, 0, (size_t)count * sizeof(float));
}

static inline void copy(float *restrict to, const float *restrict from, int64_t count) {
    memcpy(to, from, (size_t)count * sizeof(float));
}

/* hat = x * rstd, rstd = 1 / sqrt(mean(x^2) + eps), row by row. */
void train_normalize(const float *restrict x, float *restrict hat, float *restrict rstd,
                     int64_t rows, int64_t width, float eps) {
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * width;
        float *out = hat + r * width;
        float scale = 1.0f / sqrtf(dot(in, in, width) / (float)width + eps);
        rstd[r] = scale;
        for (int64_t i = 0; i < width; i++) out[i] = in[i] * scale;
    }
}

/* target += rstd * (grad - hat * mean(grad * hat)), row by row. */
void train_normalize_backward(const float *restrict grad, const float *restrict hat,
                              const float *restrict rstd, float *restrict target,
                              int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const float *g = grad + r * width, *h = hat + r * width;
        float *out = target + r * width;
        float scale = rstd[r], mean = dot(g, h, width) / (float)width;
        for (int64_t i = 0; i < width; i++) out[i] += scale * (g[i] - h[i] * mean);
    }
}

/* activated = silu(gate) * up; each row of gate_up is (gate, up), each of `width`. */
void train_swiglu(const float *restrict gate_up, float *restrict activated,
                  int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict gate = gate_up + 2 * r * width, *restrict up = gate + width;
        float *restrict out = activated + r * width;
        for (int64_t i = 0; i < width; i++) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
}

/* From the gradient of `activated`: that of (gate, up), and `activated` itself once more. */
void train_swiglu_backward(const float *restrict gate_up, const float *restrict grad,
                           float *restrict grad_gate_up, float *restrict activated,
                           int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict gate = gate_up + 2 * r * width, *restrict up = gate + width;
        const float *restrict g = grad + r * width;
        float *restrict grad_gate = grad_gate_up + 2 * r * width;
        float *restrict grad_up = grad_gate + width, *restrict out = activated + r * width;
        for (int64_t i = 0; i < width; i++) {
            float s = sigmoid(gate[i]), silu = gate[i] * s;
            out[i] = silu * up[i];
            grad_up[i] = g[i] * silu;
            grad_gate[i] = g[i] * up[i] * (s + silu * (1.0f - s));
        }
    }
}

static inline void rotate(const float *restrict x, const float *restrict turn, int64_t dim,
                          float *restrict out) {
    for (int64_t i = 0; i < dim; i += 2) {
        out[i] = x[i] * turn[i] - x[i + 1] * turn[i + 1];
        out[i + 1] = x[i + 1] * turn[i] + x[i] * turn[i + 1];
    }
}

static inline void rotate_back(const float *restrict x, const float *restrict turn, int64_t dim,
                               float *restrict out) {
    for (int64_t i = 0; i < dim; i += 2) {
        out[i] = x[i] * turn[i] + x[i + 1] * turn[i + 1];
        out[i + 1] = x[i + 1] * turn[i] - x[i] * turn[i + 1];
    }
}

static inline __attribute__((always_inline)) void heads_forward(
        const block *b, const float *restrict qkv, const float *restrict gain,
        const float *restrict rotation, const float *restrict prefix_keys,
        const float *restrict prefix_values, float *restrict queries, float *restrict keys,
        float *restrict values, float *restrict rstd, const int64_t dim) {
    const int64_t heads = b->heads, kv = b->kv_heads, all = heads + kv;
    float scaled[MAX_DIM];
    for (int64_t r = 0; r < b->rows; r++) {
        const int64_t length = b->lengths[r], prefix = b->prefixes[r];
        for (int64_t t = 0; t < length; t++) {
            const int64_t token = b->starts[r] + t;
            const float *x = qkv + token * (heads + 2 * kv) * dim;
            const float *turn = rotation + (b->firsts[r] + t) * dim;
            for (int64_t h = 0; h < all; h++, x += dim) {
                float *to = h < heads
                    ? queries + ((r * heads + h) * b->width + t) * dim
                    : keys + ((r * kv + h - heads) * b->columns + b->room + t) * dim;
                if (gain) {
                    float scale = 1.0f / sqrtf(dot(x, x, dim) / (float)dim + b->eps);
                    rstd[token * all + h] = scale;
                    for (int64_t i = 0; i < dim; i++) scaled[i] = x[i] * scale * gain[h * dim + i];
                    rotate(scaled, turn, dim, to);
                } else {
                    rotate(x, turn, dim, to);
                }
            }
            for (int64_t h = 0; h < kv; h++, x += dim)
                copy(values + ((r * kv + h) * b->columns + b->room + t) * dim, x, dim);
        }
        for (int64_t h = 0; h < heads; h++)
            zero(queries + ((r * heads + h) * b->width + length) * dim, (b->width - length) * dim);
        for (int64_t h = 0; h < kv; h++) {
            float *k = keys + (r * kv + h) * b->columns * dim;
            float *v = values + (r * kv + h) * b->columns * dim;
            const int64_t shared = (b->families[r] * kv + h) * b->room * dim;
            if (prefix) {
                copy(k, prefix_keys + shared, prefix * dim);
                copy(v, prefix_values + shared, prefix * dim);
            }
            /* weights of these columns are 0, and 0 times a stray NaN would be NaN */
            zero(k + prefix * dim, (b->room - prefix) * dim);
            zero(v + prefix * dim, (b->room - prefix) * dim);
            zero(k + (b->room + length) * dim, (b->columns - b->room - length) * dim);
            zero(v + (b->room + length) * dim, (b->columns - b->room - length) * dim);
        }
    }
}

/* Norm of the heads (if gain), rotation, and layout for the products; a row's family lends it
 * keys and values (families, kv_heads, room, dim) of its prefix. rstd is (tokens, heads + kv). */
void train_heads(const block *b, const float *qkv, const float *gain, const float *rotation,
                 const float *prefix_keys, const float *prefix_values, float *queries,
                 float *keys, float *values, float *rstd) {
    if (b->dim == 32)
        heads_forward(b, qkv, gain, rotation, prefix_keys, prefix_values, queries, keys, values,
                      rstd, 32);
    else
        heads_forward(b, qkv, gain, rotation, prefix_keys, prefix_values, queries, keys, values,
                      rstd, b->dim);
}

/* Scores to weights, in place: softmax over the prefix and the own tokens up to the query. */
void train_softmax(const block *b, float *restrict scores) {
    for (int64_t r = 0; r < b->rows; r++) {
        const int64_t prefix = b->prefixes[r], hidden = b->room - prefix;
        for (int64_t h = 0; h < b->heads; h++) {
            float *row = scores + (r * b->heads + h) * b->width * b->columns;
            for (int64_t t = 0; t < b->lengths[r]; t++, row += b->columns) {
                const int64_t seen = b->room + t + 1;
                for (int64_t i = prefix; i < b->room; i++) row[i] = -1e30f;
                float top = row[0];
                if (prefix == 0) top = row[b->room];
                for (int64_t i = 0; i < seen; i++) top = row[i] > top ? row[i] : top;
                float total = 0.0f;
                for (int64_t i = 0; i < seen; i++) {
                    row[i] = exp_negative(row[i] - top);
                    total += row[i];
                }
                const float inverse = 1.0f / total;
                for (int64_t i = 0; i < seen; i++) row[i] *= inverse;
                zero(row + prefix, hidden);
                zero(row + seen, b->columns - seen);
            }
            zero(row, (b->width - b->lengths[r]) * b->columns);
        }
    }
}

/* Gradient of weights to gradient of scores, in place. */
void train_softmax_backward(const block *b, const float *restrict weights, float *restrict grad) {
    for (int64_t r = 0; r < b->rows; r++) {
        for (int64_t h = 0; h < b->heads; h++) {
            const int64_t offset = (r * b->heads + h) * b->width * b->columns;
            const float *p = weights + offset;
            float *g = grad + offset;
            for (int64_t t = 0; t < b->lengths[r]; t++, p += b->columns, g += b->columns) {
                const int64_t seen = b->room + t + 1;
                const float mean = dot(p, g, seen);
                for (int64_t i = 0; i < seen; i++) g[i] = p[i] * (g[i] - mean);
                zero(g + seen, b->columns - seen);
            }
            zero(g, (b->width - b->lengths[r]) * b->columns);
        }
    }
}

/* (rows, heads, width, dim) to flat tokens. */
void train_merge_heads(const block *b, const float *restrict mixed, float *restrict attended) {
    for (int64_t r = 0; r < b->rows; r++)
        for (int64_t t = 0; t < b->lengths[r]; t++)
            for (int64_t h = 0; h < b->heads; h++)
                copy(attended + ((b->starts[r] + t) * b->heads + h) * b->dim,
                     mixed + ((r * b->heads + h) * b->width + t) * b->dim, b->dim);
}

/* Flat tokens to (rows, heads, width, dim), 0 where a row has ended. */
void train_split_heads(const block *b, const float *restrict attended, float *restrict mixed) {
    for (int64_t r = 0; r < b->rows; r++) {
        const int64_t length = b->lengths[r];
        for (int64_t h = 0; h < b->heads; h++) {
            float *to = mixed + (r * b->heads + h) * b->width * b->dim;
            for (int64_t t = 0; t < length; t++)
                copy(to + t * b->dim,
                     attended + ((b->starts[r] + t) * b->heads + h) * b->dim, b->dim);
            zero(to + length * b->dim, (b->width - length) * b->dim);
        }
    }
}

static inline void add(float *restrict to, const float *restrict from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

/* Sum over rows of the gradients of their families' keys and values,
 * into (families, kv_heads, room, dim). */
void train_sum_prefixes(const block *b, const float *restrict grad_keys,
                        const float *restrict grad_values, float *restrict keys,
                        float *restrict values) {
    for (int64_t r = 0; r < b->rows; r++)
        for (int64_t h = 0; h < b->kv_heads; h++) {
            const int64_t from = (r * b->kv_heads + h) * b->columns * b->dim;
            const int64_t to = (b->families[r] * b->kv_heads + h) * b->room * b->dim;
            add(keys + to, grad_keys + from, b->prefixes[r] * b->dim);
            add(values + to, grad_values + from, b->prefixes[r] * b->dim);
        }
}

static inline __attribute__((always_inline)) void heads_backward(
        const block *b, const float *restrict qkv, const float *restrict gain,
        const float *restrict rotation, const float *restrict rstd,
        const float *restrict grad_queries, const float *restrict grad_keys,
        const float *restrict grad_values, float *restrict grad_qkv, float *restrict grad_gain,
        const int64_t dim) {
    const int64_t heads = b->heads, kv = b->kv_heads, all = heads + kv;
    float turned[MAX_DIM], hat[MAX_DIM];
    for (int64_t r = 0; r < b->rows; r++)
        for (int64_t t = 0; t < b->lengths[r]; t++) {
            const int64_t token = b->starts[r] + t, offset = token * (heads + 2 * kv) * dim;
            const float *x = qkv + offset, *turn = rotation + (b->firsts[r] + t) * dim;
            float *to = grad_qkv + offset;
            for (int64_t h = 0; h < all; h++, x += dim, to += dim) {
                if (h < heads && !grad_queries) {
                    zero(to, dim);
                    continue;
                }
                const float *from = h < heads
                    ? grad_queries + ((r * heads + h) * b->width + t) * dim
                    : grad_keys + ((r * kv + h - heads) * b->columns + b->room + t) * dim;
                if (!gain) {
                    rotate_back(from, turn, dim, to);
                    continue;
                }
                const float scale = rstd[token * all + h];
                const float *w = gain + h * dim;
                float *grad_w = grad_gain + h * dim, mean = 0.0f;
                rotate_back(from, turn, dim, turned);
                for (int64_t i = 0; i < dim; i++) {
                    hat[i] = x[i] * scale;
                    const float product = turned[i] * hat[i];
                    grad_w[i] += product;
                    mean += product * w[i];
                }
                mean /= (float)dim;
                for (int64_t i = 0; i < dim; i++) to[i] = scale * (turned[i] * w[i] - hat[i] * mean);
            }
            for (int64_t h = 0; h < kv; h++, to += dim)
                copy(to, grad_values + ((r * kv + h) * b->columns + b->room + t) * dim, dim);
        }
}

/* The way back through train_heads, for the block's own tokens. grad_queries may be NULL (0);
 * grad_gain (heads + kv_heads, dim) is added to. */
void train_heads_backward(const block *b, const float *qkv, const float *gain,
                          const float *rotation, const float *rstd, const float *grad_queries,
                          const float *grad_keys, const float *grad_values, float *grad_qkv,
                          float *grad_gain) {
    if (b->dim == 32)
        heads_backward(b, qkv, gain, rotation, rstd, grad_queries, grad_keys, grad_values,
                       grad_qkv, grad_gain, 32);
    else
        heads_backward(b, qkv, gain, rotation, rstd, grad_queries, grad_keys, grad_values,
                       grad_qkv, grad_gain, b->dim);
}
