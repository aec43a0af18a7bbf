//! Every single change of meaning that can be made to a receipt, from what it says.

use cryoflux::receipts::Kind;
use cryoflux::recipe::Precision;
use cryoflux::task::TaskKind;
use cryoflux::words::{
    Backend, BaselineLabel, Caution, Custody, IdleState, KnownBy, PaidBy, PowerOrigin, Provenance,
    Rule, Stopped, Unit,
};
use serde_json::{Value, json};

use super::chain::Owner;

/// One change of one member, in one receipt or in a commit and its answer alike.
#[derive(Clone)]
pub struct Lie {
    /// The receipts that are changed.
    pub at: Vec<usize>,
    /// The member, by its path.
    pub member: String,
    /// What it says then; nothing where it is left out.
    pub says: Option<Value>,
}

impl Lie {
    pub fn tell(&self, was: usize, says: &mut Value) {
        if self.at.contains(&was) {
            set(says, &self.member, self.says.clone());
        }
    }

    pub fn title(&self, owner: &Owner) -> String {
        let first = self.at[0];
        let receipt = &owner.truth()[first].says;
        let task = receipt["task_kind"].as_str().unwrap_or_default();
        let said = self
            .says
            .as_ref()
            .map_or("left out".into(), Value::to_string);
        let kind = receipt["kind"].as_str().unwrap();
        format!("seq {:?} ({kind} {task}): {}: {said}", self.at, self.member)
    }
}

/// Sets or removes a member by its path.
pub fn set(says: &mut Value, path: &str, value: Option<Value>) {
    let (parent, name) = match path.rsplit_once('.') {
        None => (Some(says), path),
        Some((parent, name)) => (says.pointer_mut(&pointer(parent)), name),
    };
    match parent {
        Some(Value::Object(members)) => {
            match value {
                Some(value) => members.insert(name.into(), value),
                None => members.remove(name),
            };
        }
        Some(Value::Array(items)) => {
            let at: usize = name.parse().unwrap();
            match value {
                Some(value) => items[at] = value,
                None => {
                    items.remove(at);
                }
            }
        }
        _ => {}
    }
}

pub fn get<'a>(says: &'a Value, path: &str) -> Option<&'a Value> {
    says.pointer(&pointer(path))
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The paths of all members, with what they say. An object is a member as well as its parts.
pub fn members(says: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk("", says, &mut found);
    found
}

fn walk(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, part)| (name.clone(), part))
            .collect(),
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.map(|(at, part)| (at.to_string(), part)).collect()
        }
        _ => Vec::new(),
    };
    for (name, part) in parts {
        let path = if path.is_empty() {
            name
        } else {
            format!("{path}.{name}")
        };
        found.push((path.clone(), part.clone()));
        walk(&path, part, found);
    }
}

/// All lies of a chain: each member of each receipt left out and changed in every way, each member
/// of other receipts added, alone and in a commit together with its answer.
pub fn all(owner: &Owner) -> Vec<Lie> {
    let everywhere: Vec<(String, Value)> = owner
        .truth()
        .iter()
        .flat_map(|receipt| members(&receipt.says))
        .collect();
    let mut lies = Vec::new();
    for receipt in owner.truth() {
        let partner = owner.partner(receipt.was);
        for (member, said) in members(&receipt.says) {
            let others = elsewhere(&member, &said, &everywhere);
            let mut told = vec![None];
            told.extend(changes(&said).into_iter().chain(others).map(Some));
            for says in told {
                let alone = Lie {
                    at: vec![receipt.was],
                    member: member.clone(),
                    says,
                };
                // The pair is told once, by the one that comes first.
                let twin = partner.filter(|&other| other > receipt.was);
                if let Some(other) = twin
                    && get(&owner.truth()[other].says, &member) == Some(&said)
                {
                    lies.push(Lie {
                        at: vec![receipt.was, other],
                        ..alone.clone()
                    });
                }
                lies.push(alone);
            }
        }
        lies.extend(surplus(receipt.was, &receipt.says, &everywhere));
    }
    lies
}

/// Other values that this member has in other receipts.
fn elsewhere(member: &str, said: &Value, everywhere: &[(String, Value)]) -> Vec<Value> {
    let mut found = Vec::new();
    for (other, value) in everywhere {
        let is_name = member.ends_with("_hash") && other.ends_with("model_hash");
        if (other == member || is_name) && value != said && !found.contains(value) {
            found.push(value.clone());
        }
    }
    found.truncate(if member.ends_with("_hash") { 4 } else { 2 });
    found
}

/// Members that others have and this one has not.
fn surplus(was: usize, says: &Value, everywhere: &[(String, Value)]) -> Vec<Lie> {
    let mut lies: Vec<Lie> = Vec::new();
    for (member, value) in everywhere {
        let has_place = match member.rsplit_once('.') {
            None => true,
            Some((parent, _)) => get(says, parent).is_some_and(Value::is_object),
        };
        let is_new = has_place && get(says, member).is_none();
        if is_new && lies.iter().all(|lie| lie.member != *member) {
            lies.push(Lie {
                at: vec![was],
                member: member.clone(),
                says: Some(value.clone()),
            });
        }
    }
    lies
}

/// Other things that a value might have said.
fn changes(said: &Value) -> Vec<Value> {
    match said {
        Value::Bool(said) => vec![json!(!said)],
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            let near = [number + 1, number.wrapping_sub(1), 0, number * 2 + 7];
            let near = near.into_iter().filter(|&other| other != number);
            near.map(|other| json!(other as i64)).collect()
        }
        Value::String(text) => texts(text),
        Value::Null => vec![json!("0.000000"), json!("1.000000")],
        Value::Array(items) => lists(items),
        Value::Object(_) => Vec::new(),
    }
}

fn lists(items: &[Value]) -> Vec<Value> {
    let mut lists = vec![Vec::new(), [items, items].concat()];
    let mut turned = items.to_vec();
    turned.reverse();
    lists.push(turned);
    lists.retain(|list| list != items);
    lists.into_iter().map(Value::from).collect()
}

fn texts(text: &str) -> Vec<Value> {
    if let Some(others) = other_words(text) {
        return others;
    }
    if let Some(hex) = text.strip_prefix("sha256:") {
        return vec![json!(format!("sha256:{}", flipped(hex)))];
    }
    if is_decimal(text) {
        return decimals(text);
    }
    if text.ends_with('Z') && text.contains('T') {
        return vec![
            json!(text.replacen("20", "19", 1)),
            json!(text.replace('Z', "+00:00")),
        ];
    }
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex {
        true => vec![json!(flipped(text))],
        false => vec![json!(format!("{text}x")), json!("")],
    }
}

/// Words that are kept in one enum, so that one may be said for another.
fn other_words(text: &str) -> Option<Vec<Value>> {
    macro_rules! lists {
        ($($name:ident),*) => {
            [$($name::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>()),*]
        };
    }
    let lists = lists!(
        Provenance,
        BaselineLabel,
        IdleState,
        PowerOrigin,
        Rule,
        Unit,
        Custody,
        Backend,
        Stopped,
        KnownBy,
        Caution,
        PaidBy,
        Kind,
        TaskKind,
        Precision
    );
    let mut mine = lists.into_iter().find(|list| list.contains(&text))?;
    mine.retain(|word| *word != text);
    mine.push("else");
    Some(mine.into_iter().map(Value::from).collect())
}

fn flipped(hex: &str) -> String {
    let (rest, last) = hex.split_at(hex.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

fn is_decimal(text: &str) -> bool {
    let digits = text.trim_start_matches('-').replacen('.', "", 1);
    text.contains('.') && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Moved by the last place, doubled, halved, of the other sign, nothing, and no number at all.
fn decimals(text: &str) -> Vec<Value> {
    let places = text.len() - text.find('.').unwrap() - 1;
    let units: i128 = text.replace('.', "").parse().unwrap();
    let written = |units: i128| {
        let digits = format!("{:0>width$}", units.unsigned_abs(), width = places + 1);
        let (whole, part) = digits.split_at(digits.len() - places);
        format!("{}{whole}.{part}", if units < 0 { "-" } else { "" })
    };
    let mut others: Vec<String> = [units + 1, units - 1, units * 2, units / 2, -units, 0]
        .into_iter()
        .map(written)
        .collect();
    others.extend(["inf", "NaN", "1e3", ""].map(String::from));
    others.push(format!("{text}0"));
    others.retain(|other| other != text);
    others.sort();
    others.dedup();
    others.into_iter().map(Value::from).collect()
}
