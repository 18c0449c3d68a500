namespace Cmcl

/// Every method by name: bounds, the paper's rivals in its order, null spaces and what is left of them, DNS. A new one is one file and one line here.
[<RequireQualifiedAccess>]
module Registry =
    let methods: Method list =
        [ Plain.zeroShot
          Plain.individual
          Plain.joint
          Plain.vanilla
          Gem.gem
          Der.der
          Der.derpp
          Ewc.ewc
          Co2l.co2l
          CFlat.cFlat
          Cila.cila
          NullSpace.nsp
          Reference.reference
          NullSpace.eigenbasisOnly
          NullSpace.dns
          NullSpace.soft
          NullSpace.trust ]

    /// Those that a method which changes how another trains can be put around.
    let hosts: Method list = methods |> List.filter (fun m -> m.Around.IsNone && m.Curriculum <> Curriculum.Never)

    /// A method by its name, or the names that there are.
    let find (name: string) : Result<Method, Fault list> =
        match methods |> List.tryFind (fun m -> m.Name = name) with
        | Some m -> Ok m
        | None -> Error [ Fault.Unknown("method", name, methods |> List.map _.Name) ]
