package chart

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Flame is a flame graph: who was running, over who had called it. Its width is
// the share of samples.
type Flame struct {
	Title string
	Note  string
	root  frame
}

// KernelMark ends the name of a function that ran in the kernel, as in the
// folded stacks of Linux' own tools.
const KernelMark = "_[k]"

// frame is a function in one stack, with all that it called.
type frame struct {
	name  string
	count int // samples, with those of the calls
	calls map[string]*frame
}

const (
	frameHeight = 17
	flameTop    = 74
	narrowest   = 0.7 // pixels; frames below are left out, and all above them
	frameText   = 11
)

// Add reads folded stacks, one a line, outermost first: `main;read;tcp_recvmsg_[k] 12`.
func (f *Flame) Add(folded io.Reader) error {
	lines := bufio.NewScanner(folded)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		cut := strings.LastIndexByte(lines.Text(), ' ')
		count, err := strconv.Atoi(lines.Text()[cut+1:])
		if cut < 1 || err != nil || count < 1 {
			return fmt.Errorf("reading folded stacks: line %d: %q has no count at its end", n, lines.Text())
		}
		f.root.add(strings.Split(lines.Text()[:cut], ";"), count)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading folded stacks: %w", err)
	}
	return nil
}

func (f *frame) add(stack []string, count int) {
	f.count += count
	if len(stack) == 0 {
		return
	}
	if f.calls == nil {
		f.calls = map[string]*frame{}
	}
	next := f.calls[stack[0]]
	if next == nil {
		next = &frame{name: stack[0]}
		f.calls[stack[0]] = next
	}
	next.add(stack[1:], count)
}

// SVG returns the picture, or an error if there are no samples.
func (f *Flame) SVG() ([]byte, error) {
	if f.root.count == 0 {
		return nil, fmt.Errorf("drawing %q: there are no samples", f.Title)
	}
	scale := (width - 2*margin) / float64(f.root.count)
	bottom := flameTop + float64(f.root.depth(scale))*frameHeight
	c := newCanvas(bottom+margin, f.Title, f.Note)
	x := float64(margin)
	for _, call := range f.root.ordered() {
		x += f.draw(c, call, x, bottom-frameHeight, scale)
	}
	return c.bytes()
}

// depth is how many rows the visible frames take.
func (f *frame) depth(scale float64) int {
	most := 0
	for _, call := range f.calls {
		if float64(call.count)*scale >= narrowest {
			most = max(most, 1+call.depth(scale))
		}
	}
	return most
}

// ordered is by name, so that two pictures can be compared.
func (f *frame) ordered() []*frame {
	return slices.SortedFunc(maps.Values(f.calls), func(a, b *frame) int { return cmp.Compare(a.name, b.name) })
}

// draw draws a frame with its calls above it, and returns its width.
func (f *Flame) draw(c *canvas, fr *frame, x, y, scale float64) float64 {
	w := float64(fr.count) * scale
	if w < narrowest {
		return w
	}
	name, kernel := strings.CutSuffix(fr.name, KernelMark)
	kind := "user"
	if kernel {
		kind = "kernel"
	}
	share := 100 * float64(fr.count) / float64(f.root.count)
	c.rect(x, y, max(w-0.5, 0.3), frameHeight-1, kind, fmt.Sprintf("%s: %.1f %%, %d samples", name, share, fr.count))
	c.text(x+3, y+12, "frame", frameText, "start", shorten(name, w-6))
	for _, call := range fr.ordered() {
		x += f.draw(c, call, x, y-frameHeight, scale)
	}
	return w
}

// shorten cuts a name to what fits into w pixels; "" if that says nothing.
func shorten(name string, w float64) string {
	if textWidth(name, frameText) <= w {
		return name
	}
	cut := []rune(name)
	for len(cut) > 3 && textWidth(string(cut)+"…", frameText) > w {
		cut = cut[:len(cut)-1]
	}
	if len(cut) <= 3 {
		return ""
	}
	return string(cut) + "…"
}
