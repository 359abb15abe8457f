package main

import (
	"math/bits"
	"slices"
	"time"
)

// median returns the middle value, the mean of the two middle ones for an even
// count, and 0 for none.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	switch n := len(v); {
	case n == 0:
		return 0
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// subBits is the histogram's precision: 32 buckets per power of two, so a
// value is known to about 3 per cent.
const subBits = 5

// histogram counts durations of any length in buckets that grow with them.
type histogram struct {
	buckets [(64 - subBits + 1) << subBits]uint64
	count   uint64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.count++
}

// bucketOf is linear up to 2^subBits, and keeps subBits+1 leading bits beyond.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// bucketEnd is the highest value of a bucket.
func bucketEnd(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return uint64(i-shift<<subBits+1)<<shift - 1
}

// quantile returns a duration that a share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.count) + 0.5)
	seen := uint64(0)
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return time.Duration(bucketEnd(i))
		}
	}
	return 0
}
