package main

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// subBits is the histogram's precision: 128 buckets per power of two, so a
// value is known to less than 1 per cent.
const subBits = 7

// histogram counts durations of any length in buckets that grow with them.
type histogram struct {
	buckets [(64 - subBits + 1) << subBits]uint64
	count   uint64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.count++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
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

// micros is quantile in microseconds.
func (h *histogram) micros(q float64) float64 { return float64(h.quantile(q)) / 1e3 }

// MarshalJSON writes one string of the buckets that are not empty, as pairs
// NANOSECONDS:COUNT, where the first is the highest value of the bucket.
func (h *histogram) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	for i, n := range h.buckets {
		if n > 0 {
			fmt.Fprintf(&b, " %d:%d", bucketEnd(i), n)
		}
	}
	return json.Marshal(strings.TrimPrefix(b.String(), " "))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *histogram) UnmarshalJSON(text []byte) error {
	var pairs string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return err
	}
	*h = histogram{}
	for _, pair := range strings.Fields(pairs) {
		end, count, _ := strings.Cut(pair, ":")
		v, err := strconv.ParseUint(end, 10, 64)
		if err != nil {
			return fmt.Errorf("reading a histogram: %w", err)
		}
		n, err := strconv.ParseUint(count, 10, 64)
		if err != nil {
			return fmt.Errorf("reading a histogram: %w", err)
		}
		h.buckets[bucketOf(v)] += n
		h.count += n
	}
	return nil
}
