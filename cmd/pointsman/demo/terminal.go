package demo

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// terminal is where the live view is drawn.
type terminal struct {
	out   *os.File
	paint paint
}

// terminalOn returns the terminal that w is, or nil if it is none that can
// move its cursor.
func terminalOn(w io.Writer) *terminal {
	out, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return &terminal{out, paint{
		colours: os.Getenv("NO_COLOR") == "", // no-color.org: any value but an empty one
		unicode: speaksUnicode(),
	}}
}

// speaksUnicode follows the order in which setlocale(3) looks.
func speaksUnicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(os.Getenv(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return false
}

// Control sequences of xterm that every terminal emulator and the Linux
// console know, or ignore: the alternate screen, the cursor, and the wrap at
// the end of a line.
const (
	enterView = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveView = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home      = "\x1b[H"
	clearLine = "\x1b[K"
)

func (t *terminal) enter() { io.WriteString(t.out, enterView) }

func (t *terminal) leave() { io.WriteString(t.out, leaveView) }

// draw fills the screen with the view at the size of this moment,
// in one write so that it does not flicker.
func (t *terminal) draw(v view) {
	width, height := 80, 24
	if size, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		width, height = int(size.Col), int(size.Row)
	}
	lines := v.render(width, height, t.paint)
	// Cleared beforehand: behind a full line the cursor stands on its last column.
	io.WriteString(t.out, home+clearLine+strings.Join(lines, "\r\n"+clearLine))
}
