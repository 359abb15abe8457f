package postgres

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"
)

// transaction is one line of pgbench's log.
type transaction struct {
	client int
	took   int64 // us, without the connect
	ended  int64 // us since 1970
}

// parseLog reads a log as pgbench --log writes it, and hands each transaction
// to add. A line is
//
//	client_id transaction_no time script_no time_epoch time_us [schedule_lag] [retries]
//
// where time is a word instead of a number if the transaction failed or was
// skipped (PostgreSQL's manual, pgbench, Per-Transaction Logging).
func parseLog(r io.Reader, add func(transaction)) error {
	for lines := bufio.NewReaderSize(r, 1<<16); ; {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil { // also a last line without its end
			return fmt.Errorf("%q is no line: %w", line, err)
		}
		t, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return err
		}
		add(t)
	}
}

func parseLine(line []byte) (transaction, error) {
	var numbers [6]int64
	rest := line
	for i := range numbers {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte(" "))
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return transaction{}, fmt.Errorf("%q is not a successful transaction", line)
		}
		numbers[i] = n
	}
	return transaction{client: int(numbers[0]), took: numbers[2], ended: numbers[4]*1e6 + numbers[5]}, nil
}

// gathering picks the transactions that ended in [from, to), us since 1970.
type gathering struct {
	from, to  int64
	connect   bool
	last      map[int]int64 // when a client's last transaction ended
	early     int           // clients that ended one before from
	latencies []time.Duration
}

func (g *gathering) add(t transaction) {
	last, known := g.last[t.client]
	g.last[t.client] = t.ended
	if t.ended < g.from {
		if !known {
			g.early++
		}
		return
	}
	if t.ended >= g.to {
		return
	}
	took := t.took
	if g.connect {
		took = t.ended - last
	}
	g.latencies = append(g.latencies, time.Duration(took)*time.Microsecond)
}
