package simulation

// Ledger finds the writes that a client was told are safe and that the
// cluster does not remember. The zero value is ready.
type Ledger struct {
	Lost uint64 // acknowledged, and not kept

	kept map[string]bool // kept, and not yet known to be acknowledged
}

// Add takes over what happened since the last call. acked must have been
// taken from the clients before writes was taken from the cluster: a node
// records a write before it answers, so that no answer is ahead of it.
func (l *Ledger) Add(acked []string, writes []Write) {
	if l.kept == nil {
		l.kept = map[string]bool{}
	}
	for _, w := range writes {
		if w.Kept {
			l.kept[w.Text] = true
		}
	}
	for _, text := range acked {
		if !l.kept[text] {
			l.Lost++
		}
		delete(l.kept, text)
	}
}
