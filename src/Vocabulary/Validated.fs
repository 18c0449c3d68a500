namespace Cmcl

/// `validated { let! a = … and! b = … return … }`: a result of several, with the faults of all of them.
type ValidatedBuilder() =
    member _.MergeSources(a: Result<'a, Fault list>, b: Result<'b, Fault list>) : Result<'a * 'b, Fault list> =
        match a, b with
        | Ok a, Ok b -> Ok(a, b)
        | Error a, Error b -> Error(a @ b)
        | Error faults, Ok _
        | Ok _, Error faults -> Error faults

    member _.BindReturn(result: Result<'a, Fault list>, f: 'a -> 'b) : Result<'b, Fault list> = Result.map f result

    member _.Bind(result: Result<'a, Fault list>, f: 'a -> Result<'b, Fault list>) : Result<'b, Fault list> = Result.bind f result

    member _.Return(value: 'a) : Result<'a, Fault list> = Ok value
    member _.ReturnFrom(result: Result<'a, Fault list>) : Result<'a, Fault list> = result

[<AutoOpen>]
module Validated =
    let validated = ValidatedBuilder()
