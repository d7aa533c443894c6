//! Names of types, as every compiler would write them.

/// `Vec<url::Url>` as `Vec<Url>`, and without lifetimes, which not all compilers write.
pub(crate) fn without_modules(name: &str) -> String {
    let name = name.replace("'_, ", "").replace("<'_>", "").replace("'_ ", "");
    let mut short = String::with_capacity(name.len());
    let mut word = 0;
    for char in name.chars() {
        short.push(char);
        if short.ends_with("::") {
            short.truncate(word);
        } else if !(char.is_alphanumeric() || "_:".contains(char)) {
            word = short.len();
        }
    }
    short
}
