//! Where boxes and lines of a graph go. Layers and positions come from `rust-sugiyama`; lines that pass layers get
//! vertices of their own there, so that they never run through a box. Graphs too large to be looked at as a whole are laid
//! out in linear time instead: every box below the middle of what it needs.

use std::collections::{BTreeMap, HashMap};

use rust_sugiyama::configure::Config;

/// Distance between layers.
const LAYER_GAP: f64 = 44.0;
/// Distance between neighbours of a layer.
const BOX_GAP: f64 = 28.0;
/// Room that a passing line takes.
const LINE_WIDTH: f64 = 14.0;
/// Most boxes and passing lines that are put in the order with the fewest crossings, which takes more than linear time.
const ARRANGED_MAX: usize = 1_000;
/// Most places where lines pass a layer; with more, long lines run straight, behind the boxes.
const PASSING_MAX: usize = 100_000;

/// A laid-out graph. Coordinates grow to the right and down.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Centres of the boxes.
    pub centres: Vec<(f64, f64)>,
    /// The points that each line goes through, by edge.
    pub lines: Vec<Vec<(f64, f64)>>,
    /// Width of the whole.
    pub width: f64,
    /// Height of the whole.
    pub height: f64,
}

/// Lays out boxes of given sizes. Edges go from earlier to later boxes of an acyclic graph.
pub fn lay_out(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Layout {
    let layers = layers_of(sizes.len(), edges);
    let box_height = sizes.iter().map(|size| size.1).fold(0.0, f64::max);
    let mut widths: Vec<f64> = sizes.iter().map(|size| size.0).collect();
    let mut layer_of = layers.clone();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    let mut ways: Vec<Vec<usize>> = Vec::new();
    let passing: usize = edges.iter().map(|&(from, to)| layers[to].saturating_sub(layers[from] + 1)).sum();
    for &(from, to) in edges {
        let mut way = vec![from];
        for layer in (layers[from] + 1..layers[to]).filter(|_| passing <= PASSING_MAX) {
            widths.push(LINE_WIDTH);
            layer_of.push(layer);
            way.push(widths.len() - 1);
        }
        way.push(to);
        parts.extend(way.windows(2).map(|pair| (number(pair[0]), number(pair[1]))));
        ways.push(way);
    }
    let across = if widths.len() <= ARRANGED_MAX {
        columns(&widths, &layer_of, &parts)
    } else {
        rows_below_each_other(&widths, &layer_of, &parts)
    };
    let down = |vertex: usize| f64::from(number(layer_of[vertex])) * (box_height + LAYER_GAP) + box_height / 2.0;
    let left = (0..widths.len()).map(|v| across[v] - widths[v] / 2.0).fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    let right = (0..widths.len()).map(|v| across[v] + widths[v] / 2.0).fold(left, f64::max);
    let bottom = (0..widths.len()).map(|v| down(v) + box_height / 2.0).fold(0.0, f64::max);
    let lines = ways.iter().map(|way| points(way, &across, &down, left, box_height)).collect();
    Layout {
        centres: (0..sizes.len()).map(|v| (across[v] - left, down(v))).collect(),
        lines,
        width: right - left,
        height: bottom,
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A line leaves a box at its bottom, passes the layers between straight, and enters a box at its top.
fn points(way: &[usize], across: &[f64], down: &impl Fn(usize) -> f64, left: f64, box_height: f64) -> Vec<(f64, f64)> {
    let half = box_height / 2.0;
    let last = way.len() - 1;
    let mut points = Vec::new();
    for (place, &vertex) in way.iter().enumerate() {
        let x = across[vertex] - left;
        if place > 0 {
            points.push((x, down(vertex) - half));
        }
        if place < last {
            points.push((x, down(vertex) + half));
        }
    }
    points
}

/// The layer of every box: one below the lowest of those that it needs.
fn layers_of(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut unmet = vec![0_usize; count];
    for &(from, to) in edges {
        below[from].push(to);
        unmet[to] += 1;
    }
    let mut layers = vec![0; count];
    let mut free: Vec<usize> = (0..count).filter(|&place| unmet[place] == 0).collect();
    while let Some(from) = free.pop() {
        for &to in &below[from] {
            layers[to] = layers[to].max(layers[from] + 1);
            unmet[to] -= 1;
            if unmet[to] == 0 {
                free.push(to);
            }
        }
    }
    layers
}

/// Horizontal centres in linear time: layer by layer, each box as near as there is room to the middle of those above it.
fn rows_below_each_other(widths: &[f64], layer_of: &[usize], parts: &[(u32, u32)]) -> Vec<f64> {
    let mut above: Vec<Vec<usize>> = vec![Vec::new(); widths.len()];
    for &(from, to) in parts {
        above[to as usize].push(from as usize);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layer_of.iter().max().map_or(0, |layer| layer + 1)];
    for (vertex, &layer) in layer_of.iter().enumerate() {
        rows[layer].push(vertex);
    }
    let mut across = vec![0.0; widths.len()];
    for row in &mut rows {
        let middle = |vertex: usize| {
            let count = above[vertex].len().max(1);
            above[vertex].iter().map(|&from| across[from]).sum::<f64>() / f64::from(number(count))
        };
        let mut wanted: Vec<(f64, usize)> = row.iter().map(|&vertex| (middle(vertex), vertex)).collect();
        wanted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut edge = f64::NEG_INFINITY;
        let mut off = 0.0;
        for &(middle, vertex) in &wanted {
            across[vertex] = middle.max(edge + widths[vertex] / 2.0);
            edge = across[vertex] + widths[vertex] / 2.0 + BOX_GAP;
            off += across[vertex] - middle;
        }
        // Boxes only gave way to the right: the row as a whole goes back below the one above.
        let off = off / f64::from(number(wanted.len().max(1)));
        for &vertex in row.iter() {
            across[vertex] -= off;
        }
    }
    across
}

/// Horizontal centres: the order in each layer from `rust-sugiyama`, its positions where they leave room, and the
/// parts of a graph that hang together beside each other.
fn columns(widths: &[f64], layer_of: &[usize], parts: &[(u32, u32)]) -> Vec<f64> {
    let mut across = vec![0.0; widths.len()];
    let mut offset = 0.0;
    let vertices: Vec<(u32, (f64, f64))> =
        widths.iter().enumerate().map(|(place, width)| (number(place), (width + BOX_GAP, 40.0))).collect();
    if vertices.is_empty() {
        return across;
    }
    let config = Config { vertex_spacing: 6.0, ..Config::default() };
    for (placed, _, _) in rust_sugiyama::from_vertices_and_edges(&vertices, parts, &config) {
        let wanted: HashMap<usize, f64> = placed.iter().map(|(vertex, (x, _))| (*vertex, *x)).collect();
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (vertex, _) in &placed {
            rows.entry(layer_of[*vertex]).or_default().push(*vertex);
        }
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for row in rows.values_mut() {
            row.sort_by(|a, b| wanted[a].total_cmp(&wanted[b]).then(a.cmp(b)));
            let mut edge = f64::NEG_INFINITY;
            for &vertex in row.iter() {
                let half = widths[vertex] / 2.0;
                across[vertex] = wanted[&vertex].max(edge + half);
                edge = across[vertex] + half + BOX_GAP;
                low = low.min(across[vertex] - half);
                high = high.max(across[vertex] + half);
            }
        }
        for (vertex, _) in &placed {
            across[*vertex] += offset - low;
        }
        offset += high - low + BOX_GAP;
    }
    across
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of random acyclic graphs never overlap, and no line passes through one.
    #[test]
    fn boxes_and_lines_keep_apart() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let count = random.usize(1..24);
            let sizes: Vec<_> = (0..count).map(|_| (random.f64() * 120.0 + 60.0, 56.0)).collect();
            let mut edges = Vec::new();
            for to in 1..count {
                for _ in 0..random.usize(0..3) {
                    let edge = (random.usize(0..to), to);
                    if !edges.contains(&edge) {
                        edges.push(edge);
                    }
                }
            }
            let layout = lay_out(&sizes, &edges);
            let rectangle = |v: usize| {
                let (x, y) = layout.centres[v];
                (x - sizes[v].0 / 2.0, x + sizes[v].0 / 2.0, y)
            };
            for a in 0..count {
                for b in 0..a {
                    let ((al, ar, ay), (bl, br, by)) = (rectangle(a), rectangle(b));
                    assert!((ay - by).abs() > 1.0 || ar <= bl || br <= al, "boxes {a} and {b} overlap");
                }
            }
            for (line, &(from, to)) in layout.lines.iter().zip(&edges) {
                for &(x, y) in line {
                    for v in (0..count).filter(|v| *v != from && *v != to) {
                        let (l, r, cy) = rectangle(v);
                        let inside = x > l && x < r && (y - cy).abs() <= 28.0;
                        assert!(!inside, "the line {from}-{to} runs through box {v}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_graph_of_ten_thousand_boxes_is_laid_out_without_overlap() {
        const COUNT: usize = 10_000;
        let sizes = vec![(100.0, 56.0); COUNT];
        let layers: Vec<_> = (100..COUNT).flat_map(|to| [(to - 100, to), (to - to % 100 - 1, to)]).collect();
        // A chain whose every step also needs the first one: fifty million places where a line passes a layer.
        let chain: Vec<_> = (1..COUNT).flat_map(|to| [(to - 1, to), (0, to)]).skip(1).collect();
        let fan: Vec<_> = (1..COUNT).map(|to| (0, to)).collect();
        for (edges, layers) in [(layers, 100), (chain, COUNT), (fan, 2)] {
            let layout = lay_out(&sizes, &edges);
            assert!((layout.height - (f64::from(number(layers)) * 100.0 - LAYER_GAP)).abs() < 1.0, "{}", layout.height);
            let mut centres = layout.centres;
            centres.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)));
            assert!(centres.windows(2).all(|pair| pair[0].1 < pair[1].1 || pair[1].0 - pair[0].0 >= 100.0));
        }
    }

    #[test]
    fn an_empty_graph_has_no_size() {
        let layout = lay_out(&[], &[]);
        assert!(layout.centres.is_empty() && layout.width == 0.0);
    }
}
