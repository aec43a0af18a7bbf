//! Circles in a graph.

use std::collections::{BTreeMap, BTreeSet};

/// From each point the points that it leads to.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// One shortest way round for each point that is in a circle and in none that was found before.
pub fn circles(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(round) = way_back(graph, start) {
            seen.extend(round.iter().cloned());
            found.push(format!("{} -> {start}", round.join(" -> ")));
        }
    }
    found
}

/// The shortest way from a point to itself.
fn way_back(graph: &Graph, start: &String) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for point in front {
            for to in graph.get(point).into_iter().flatten() {
                if to == start {
                    let back = std::iter::successors(Some(point), |&at| came_from.get(at).copied());
                    let mut way: Vec<String> = back.cloned().collect();
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(to) {
                    came_from.insert(to, point);
                    next.push(to);
                }
            }
        }
        front = next;
    }
    None
}
