package relay

// pageSize is how many sessions the slab grows by: about 24 KiB.
const pageSize = 64

// slab holds a loop's sessions by slot. Pages never move, so a pointer to a
// session stays good; the memory of the busiest moment is kept.
type slab struct {
	pages []*[pageSize]session
	free  int32 // first of the free slots, which are linked by next; -1 = none
	live  int
}

func newSlab() slab { return slab{free: -1} }

func (b *slab) at(slot int32) *session { return &b.pages[uint32(slot)/pageSize][uint32(slot)%pageSize] }

func (b *slab) slots() int32 { return int32(len(b.pages) * pageSize) }

// get returns a cleared session. The generations of its sides go on, so that
// an event for the slot's last owner is known as such.
func (b *slab) get() *session {
	if b.free < 0 {
		b.grow()
	}
	s := b.at(b.free)
	b.free = s.next
	b.live++
	*s = session{slot: s.slot, next: -1, prev: -1, timer: -1, server: -1, failed: -1, opening: -1,
		side: [2]side{emptySide(s.side[clientSide].generation), emptySide(s.side[serverSide].generation)}}
	return s
}

func emptySide(generation uint32) side {
	return side{fd: -1, chunk: -1, pipe: -1, generation: generation}
}

func (b *slab) put(s *session) {
	s.next = b.free
	b.free = s.slot
	b.live--
}

func (b *slab) grow() {
	first := b.slots()
	page := new([pageSize]session)
	for i := range page {
		page[i].slot = first + int32(i)
		page[i].next = first + int32(i) + 1
	}
	page[pageSize-1].next = -1
	b.free = first
	b.pages = append(b.pages, page)
}
