// C# blocks of a page, one after another as one program, built and run on top of csharp/, which build.fsx has
// built before.
#load "scratch.fsx"

open System.IO
open System.Text.RegularExpressions
open Markdown

let private library = full "csharp/Cmcl.CSharp.csproj"

let private project =
    $"""<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <ImplicitUsings>enable</ImplicitUsings>
    <GenerateDocumentationFile>false</GenerateDocumentationFile>
  </PropertyGroup>
  <ItemGroup><ProjectReference Include="{library}" /></ItemGroup>
  <Import Project="{full "build/Torch.targets"}" />
</Project>
"""

/// Usings come first in C#. Errors name the page and the line.
let private program (page: string) (blocks: Block list) : string list =
    let isUsing (line: string) = Regex.IsMatch(line, @"^using [\w.=\s]+;")
    let numbered = blocks |> List.collect (fun b -> b.Lines |> List.mapi (fun i line -> b.Line + i, line))

    [ for number, line in numbered do
          if isUsing line then
              $"#line {number} \"{full page}\""
              line
      for block in blocks do
          $"#line {block.Line} \"{full page}\""

          for line in block.Lines do
              if isUsing line then "" else line ]

let run (page: string) : string list * string list =
    match blocks page |> List.filter (fun b -> b.Language = "csharp") with
    | [] -> [], []
    | blocks ->
        let name = Path.ChangeExtension(page, null).Replace('/', '-')
        let folder = full ("output/examples-csharp/" + name)
        Directory.CreateDirectory folder |> ignore
        File.WriteAllText(Path.Combine(folder, name + ".csproj"), project)
        File.WriteAllLines(Path.Combine(folder, "Program.cs"), program page blocks)
        let clock = System.Diagnostics.Stopwatch.StartNew()

        match Scratch.execute folder "dotnet" [ "build"; "-c"; "Release"; "-v"; "quiet"; "-nologo"; "--no-dependencies" ] with
        | 0, _ ->
            match Scratch.execute root "dotnet" [ Path.Combine(folder, "bin/Release/net10.0", name + ".dll") ] with
            | 0, output -> [ $"{page}: {blocks.Length} C# blocks ran in {clock.Elapsed.TotalSeconds:F0} s"; output ], []
            | code, output -> [], [ $"{page}: the C# blocks ended with {code}\n{output}" ]
        | _, output -> [], [ $"{page}: the C# blocks do not build\n{output}" ]
