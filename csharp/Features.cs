using TorchSharp;

namespace Cmcl.CSharp;

/// <summary>Features between arrays, tensors and <c>.npy</c> files.</summary>
public static class Features
{
    /// <summary>An array as a tensor of float32, which belongs to the caller.</summary>
    public static torch.Tensor Of(float[,] rows)
    {
        Libtorch.Ready();
        return torch.tensor(rows);
    }

    /// <summary>A matrix as an array of float32.</summary>
    public static float[,] ToArray(torch.Tensor matrix)
    {
        Tensors.requireMatrix("a tensor for an array", -1, -1, matrix);
        using var scope = torch.NewDisposeScope();
        return (float[,])matrix.to(torch.float32).cpu().contiguous().data<float>().ToNDArray();
    }

    /// <summary>A matrix of floats from an <c>.npy</c> file, mapped where it can be. It belongs to the caller.</summary>
    /// <exception cref="CmclException">The file is not there, or holds something else.</exception>
    public static torch.Tensor Read(string path)
    {
        Libtorch.Ready();
        return Projected.features(path).OrFaults();
    }

    /// <summary>Writes a matrix or a vector as an <c>.npy</c> file.</summary>
    /// <exception cref="CmclException">The place cannot be written to.</exception>
    public static void Write(string path, torch.Tensor matrix) => Npy.write(path, matrix).OrFaults();
}
