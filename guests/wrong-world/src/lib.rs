//! A sound component of another world: it exports a greeting and no handler. Needed by the tests of verification.

wit_bindgen::generate!({
    inline: "
        package other:greetings@1.0.0;

        world greeter {
            export greet: func(name: string) -> string;
        }
    ",
});

struct Greeter;

impl Guest for Greeter {
    fn greet(name: String) -> String {
        format!("good morning, {name}")
    }
}

export!(Greeter);
