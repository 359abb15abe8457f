package relay

// chunkSizes are the sizes that a chunk may have: most tails are short, and a
// thousand stalled readers should not cost 64 KiB each for them.
var chunkSizes = [...]int{4 << 10, 16 << 10, 64 << 10}

// spareChunkBytes is how much memory of unused chunks a loop keeps for the next
// short write.
const spareChunkBytes = 512 << 10

// chunks holds the bytes that a socket would not take at once, by index, so
// that sessions need no pointers.
type chunks struct {
	data  [][]byte
	empty []int32 // unused indices
	spare [len(chunkSizes)][][]byte
	kept  int // bytes in spare
}

// put keeps a copy of b, at most the largest size, and returns its index.
func (c *chunks) put(b []byte) int32 {
	var i int32
	if n := len(c.empty); n > 0 {
		i = c.empty[n-1]
		c.empty = c.empty[:n-1]
	} else {
		i = int32(len(c.data))
		c.data = append(c.data, nil)
	}
	c.data[i] = c.take(classOf(len(b)))
	copy(c.data[i], b)
	return i
}

func (c *chunks) bytes(i int32) []byte { return c.data[i] }

func (c *chunks) free(i int32) {
	b := c.data[i]
	c.data[i] = nil
	c.empty = append(c.empty, i)
	if c.kept+len(b) <= spareChunkBytes {
		class := classOf(len(b))
		c.spare[class] = append(c.spare[class], b)
		c.kept += len(b)
	}
}

func (c *chunks) take(class int) []byte {
	spare := c.spare[class]
	if n := len(spare); n > 0 {
		b := spare[n-1]
		spare[n-1] = nil
		c.spare[class] = spare[:n-1]
		c.kept -= len(b)
		return b
	}
	return make([]byte, chunkSizes[class])
}

func classOf(n int) int {
	for class, size := range chunkSizes {
		if n <= size {
			return class
		}
	}
	panic("a chunk larger than the scratch")
}
