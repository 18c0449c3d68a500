namespace Cmcl

open System
open System.Globalization

/// How the values of an option are written and read.
type Codec<'v> =
    {
        /// What it takes, for help and for refusals.
        Takes: string
        /// Every word that is a value of it, where values are words.
        Words: string list
        Show: 'v -> string
        /// The value of a text, given the option's name for what is wrong with it.
        Read: string -> string -> Result<'v, Fault list>
    }

/// Codecs of the usual kinds of values. Faults of reading: `BadValue`, of words `NotOneOf`.
[<RequireQualifiedAccess>]
module Codec =
    /// Of a function that knows what it takes.
    let make (takes: string) (show: 'v -> string) (parse: string -> 'v option) : Codec<'v> =
        { Takes = takes
          Words = []
          Show = show
          Read =
            fun name given ->
                match parse given with
                | Some value -> Ok value
                | None -> Error [ Fault.BadValue(Mention.option name, takes, given) ] }

    let private text (x: float) = x.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e')

    let private parseFloat (s: string) =
        match Double.TryParse(s, NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, x when Double.IsFinite x -> Some x
        | _ -> None

    let private parseWhole (least: int) (s: string) =
        match Int32.TryParse(s, NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, n when n >= least -> Some n
        | _ -> None

    /// Finite numbers that fit. Example: `Codec.number "a number from 0 to 1" (fun x -> x >= 0.0 && x <= 1.0)`.
    let number (takes: string) (fits: float -> bool) : Codec<float> = make takes text (parseFloat >> Option.filter fits)

    let positive: Codec<float> = number "a number > 0" (fun x -> x > 0.0)
    let notNegative: Codec<float> = number "a number ≥ 0" (fun x -> x >= 0.0)

    /// A number > 0, or none.
    let positiveOrOff: Codec<float option> =
        make "a number > 0, or off" (Option.map text >> Option.defaultValue "off") (function
            | "off" -> Some None
            | given -> parseFloat given |> Option.filter (fun x -> x > 0.0) |> Option.map Some)

    /// Whole numbers, at least so large. Example: `Codec.whole 2`.
    let whole (least: int) : Codec<int> = make $"a whole number ≥ {least}" string (parseWhole least)

    /// Words, each with the value that it stands for. Example: `Codec.choice [ "mean", 0; "sum", 1 ]`.
    let choice (values: (string * 'v) list) : Codec<'v> =
        let words = List.map fst values

        { Takes = Fault.Choice words
          Words = words
          Show = fun v -> values |> List.find (fun (_, x) -> x = v) |> fst
          Read =
            fun name given ->
                match List.tryFind (fst >> (=) given) values with
                | Some(_, v) -> Ok v
                | None -> Error [ Fault.NotOneOf(Mention.option name, given, words) ] }

    /// What is on or off.
    let switch: Codec<bool> = choice [ "on", true; "off", false ]

    let threshold: Codec<Threshold> =
        { Takes = "KIND:VALUE, KIND being absolute, relative, trace, energy or rank"
          Words = []
          Show = Threshold.show
          Read =
            fun name given ->
                let named fault =
                    match fault with
                    | Fault.BadValue(_, expected, given) -> Fault.BadValue(Mention.option name, expected, given)
                    | Fault.NotOneOf(_, given, kinds) -> Fault.NotOneOf($"the kind of {Mention.option name}", given, kinds)
                    | other -> other

                Threshold.parse given |> Result.mapError (List.map named) }

/// What `cmcl tune` tries of an option.
[<RequireQualifiedAccess>]
type TuneRange =
    /// It stays as it is.
    | Stays
    /// These values, as they are written.
    | Among of string list
    /// Whatever another option has.
    | With of option: string

/// An option as texts, whatever record it stands in: what help, the command line and files have to know.
type OptionInfo =
    {
        Name: string
        Help: string
        Takes: string
        /// Every word that is a value of it, where values are words.
        Words: string list
        Range: TuneRange
        /// What is wrong with a text as its value.
        Check: string -> Result<unit, Fault list>
    }

    /// Whether it is on or off, and nothing else.
    member o.IsSwitch: bool = o.Words = Codec.switch.Words

/// Another option, and the values of it under which an option matters.
type Condition<'o> = { Option: string; Values: string list; Holds: 'o -> bool }

/// One option of a record `'o`, declared once: its name and help, its texts, its place in the record, when it matters, what is tried of it.
type Opt<'o, 'v> =
    {
        Name: string
        Help: string
        Codec: Codec<'v>
        Get: 'o -> 'v
        Set: 'v -> 'o -> 'o
        /// All of these have to hold, or it changes nothing.
        Conditions: Condition<'o> list
        Range: TuneRange
        /// Its default stands over what a stream suggests for all methods.
        OwnDefault: bool
    }

/// The same with the type of its value hidden.
type AnyOpt<'o> =
    { Info: OptionInfo
      Show: 'o -> string
      Read: string -> 'o -> Result<'o, Fault list>
      Conditions: Condition<'o> list
      OwnDefault: bool }

/// Declarations of options, each of which is read from left to right: what it is, when it matters, what is tried of it.
[<RequireQualifiedAccess>]
module Opt =
    /// An option that always matters, and that `cmcl tune` leaves as it is. Example:
    /// `Opt.make "strength" "how hard it pulls" Codec.notNegative id (fun (v: float) (_: float) -> v)`.
    let make (name: string) (help: string) (codec: Codec<'v>) (get: 'o -> 'v) (set: 'v -> 'o -> 'o) : Opt<'o, 'v> =
        { Name = name
          Help = help
          Codec = codec
          Get = get
          Set = set
          Conditions = []
          Range = TuneRange.Stays
          OwnDefault = false }

    /// It matters only where another option has one of these values.
    let onlyWith (other: Opt<'o, 'w>) (values: 'w list) (option: Opt<'o, 'v>) : Opt<'o, 'v> =
        let condition =
            { Option = other.Name
              Values = List.map other.Codec.Show values
              Holds = fun o -> List.contains (other.Get o) values }

        { option with
            Conditions = option.Conditions @ [ condition ] }

    /// `cmcl tune` tries these values, as users write them.
    let tried (values: string list) (option: Opt<'o, 'v>) : Opt<'o, 'v> = { option with Range = TuneRange.Among values }

    /// `cmcl tune` gives it whatever it gives the other.
    let triedWith (other: Opt<'o, 'w>) (option: Opt<'o, 'v>) : Opt<'o, 'v> = { option with Range = TuneRange.With other.Name }

    /// Its default stands over what a stream suggests for all methods; what a stream says for the one method stands over that.
    let ownDefault (option: Opt<'o, 'v>) : Opt<'o, 'v> = { option with OwnDefault = true }

    /// An option of a part as one of the whole.
    let within (get: 'p -> 'o) (set: 'o -> 'p -> 'p) (option: Opt<'o, 'v>) : Opt<'p, 'v> =
        { Name = option.Name
          Help = option.Help
          Codec = option.Codec
          Get = get >> option.Get
          Set = fun v p -> set (option.Set v (get p)) p
          Conditions =
            [ for c in option.Conditions ->
                  { Option = c.Option
                    Values = c.Values
                    Holds = get >> c.Holds } ]
          Range = option.Range
          OwnDefault = option.OwnDefault }

    /// With the type of its value hidden, for the list of a method's options.
    let any (option: Opt<'o, 'v>) : AnyOpt<'o> =
        { Info =
            { Name = option.Name
              Help = option.Help
              Takes = option.Codec.Takes
              Words = option.Codec.Words
              Range = option.Range
              Check = option.Codec.Read option.Name >> Result.map ignore }
          Show = option.Get >> option.Codec.Show
          Read = fun given o -> option.Codec.Read option.Name given |> Result.map (fun v -> option.Set v o)
          Conditions = option.Conditions
          OwnDefault = option.OwnDefault }
