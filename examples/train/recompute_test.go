package train_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// field returns the value of name in a result line.
func field(t *testing.T, result, name string) string {
	t.Helper()
	for pair := range strings.FieldsSeq(result) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	t.Fatalf("%q has no %s", result, name)
	return ""
}

// plant is a line of data/iris.csv.
type plant struct {
	lengths [4]float64
	species string
}

func plants(t *testing.T) []plant {
	t.Helper()
	text, err := os.ReadFile("data/iris.csv")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var all []plant
	for _, line := range lines[1:] {
		p := plant{species: line[4]}
		for i := range p.lengths {
			if p.lengths[i], err = strconv.ParseFloat(line[i], 64); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, p)
	}
	return all
}

// TestData holds the file against the means of the three species, known since 1936.
func TestData(t *testing.T) {
	t.Parallel()
	means := map[string][4]float64{
		"setosa":     {5.006, 3.428, 1.462, 0.246},
		"versicolor": {5.936, 2.770, 4.260, 1.326},
		"virginica":  {6.588, 2.974, 5.552, 2.026},
	}
	all := plants(t)
	for name, want := range means {
		var sums [4]float64
		count := 0
		for _, p := range all {
			if p.species == name {
				count++
				for i, length := range p.lengths {
					sums[i] += length
				}
			}
		}
		for i := range sums {
			if math.Abs(sums[i]/50-want[i]) > 1e-9 || count != 50 {
				t.Errorf("%s: column %d has mean %g over %d plants, want %g over 50", name, i+1, sums[i]/50, count, want[i])
			}
		}
	}
	if len(all) != 150 {
		t.Errorf("%d plants, want 150", len(all))
	}
}

// weights is the part of a checkpoint that makes the network.
type weights struct {
	W1, W2 [][]float64
	B1, B2 []float64
}

// recompute returns the accuracy and the loss that the weights in a checkpoint
// give on the plants held out, as train.py prints them. It shares no code with
// train.py.
func recompute(t *testing.T, checkpoint string) (accuracy, loss string) {
	t.Helper()
	text, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(text, []byte("\n"))
	var saved struct{ Weights weights }
	if err := json.Unmarshal(body, &saved); err != nil {
		t.Fatal(err)
	}
	known, heldOut := split(plants(t))
	mean, deviation := scale(known)
	total, right := 0.0, 0
	for _, p := range heldOut {
		for i := range p.lengths {
			p.lengths[i] = (p.lengths[i] - mean[i]) / deviation[i]
		}
		kind := slices.Index([]string{"setosa", "versicolor", "virginica"}, p.species)
		scores := saved.Weights.scores(p.lengths[:])
		sum := 0.0
		for _, score := range scores {
			sum += math.Exp(score)
		}
		total += math.Log(sum) - scores[kind]
		if scores[kind] == slices.Max(scores) {
			right++
		}
	}
	n := float64(len(heldOut))
	return fmt.Sprintf("%.4f", float64(right)/n), fmt.Sprintf("%.6f", total/n)
}

func (w weights) scores(lengths []float64) []float64 {
	hidden := layer(w.W1, w.B1, lengths)
	for i, x := range hidden {
		hidden[i] = math.Tanh(x)
	}
	return layer(w.W2, w.B2, hidden)
}

func layer(lines [][]float64, biases, in []float64) []float64 {
	out := slices.Clone(biases)
	for i, line := range lines {
		for j, x := range in {
			out[i] += line[j] * x
		}
	}
	return out
}

// split holds out every third plant, as the README says.
func split(all []plant) (known, heldOut []plant) {
	for i, p := range all {
		if i%3 == 2 {
			heldOut = append(heldOut, p)
		} else {
			known = append(known, p)
		}
	}
	return known, heldOut
}

func scale(known []plant) (mean, deviation [4]float64) {
	n := float64(len(known))
	for i := range mean {
		for _, p := range known {
			mean[i] += p.lengths[i] / n
		}
		for _, p := range known {
			deviation[i] += (p.lengths[i] - mean[i]) * (p.lengths[i] - mean[i]) / n
		}
		deviation[i] = math.Sqrt(deviation[i])
	}
	return mean, deviation
}
