// Compiles Metal sources on this Mac's GPU, and makes pipelines of their kernels. Reads a request, prints JSON lines.
//
//   compile_kernels REQUEST.json
//
//   {"libraries": [{"name": "turbo", "path": "/a/file.metal", "macros": {"NAME": "1"}}],
//    "pipelines": [{"library": "turbo", "kernel": "kernel_x", "constants": {"0": 4, "1": true}}]}
//
// A pipeline without a library is looked for in all. The values of its function constants are by index; their types
// are the kernel's own. Lines: {"device": ...}, then {"library": ...} and {"pipeline": ...} for each, with an "error"
// where one cannot be made.

#import <Foundation/Foundation.h>
#import <Metal/Metal.h>

static void tell(NSDictionary * line) {
    NSError * error = nil;
    NSData * data = [NSJSONSerialization dataWithJSONObject:line options:0 error:&error];
    if (data == nil) {
        fprintf(stderr, "a line cannot be written: %s\n", error.localizedDescription.UTF8String);
        return;
    }
    fwrite(data.bytes, 1, data.length, stdout);
    fputc('\n', stdout);
    fflush(stdout);
}

static NSString * words(NSError * error) {
    return error ? error.localizedDescription : @"no reason is given";
}

static double since(NSDate * begun) {
    return -begun.timeIntervalSinceNow;
}

static void tell_device(id<MTLDevice> device) {
    const MTLSize most = device.maxThreadsPerThreadgroup;
    tell(@{
        @"device" : device.name,
        @"threads" : @(most.width),
        @"memory" : @(device.maxThreadgroupMemoryLength),
        @"unified" : @(device.hasUnifiedMemory),
        @"working_set" : @(device.recommendedMaxWorkingSetSize),
        @"apple7" : @([device supportsFamily:MTLGPUFamilyApple7]),
        @"metal3" : @([device supportsFamily:MTLGPUFamilyMetal3]),
    });
}

// As llama.cpp compiles it: the default options, and macros.
static id<MTLLibrary> compile(id<MTLDevice> device, NSDictionary * asked) {
    NSString * name = asked[@"name"];
    NSError * error = nil;
    NSString * source = [NSString stringWithContentsOfFile:asked[@"path"] encoding:NSUTF8StringEncoding error:&error];
    if (source == nil) {
        tell(@{ @"library" : name, @"error" : words(error) });
        return nil;
    }
    MTLCompileOptions * options = [MTLCompileOptions new];
    options.preprocessorMacros = asked[@"macros"];
    NSDate * begun = [NSDate date];
    id<MTLLibrary> library = [device newLibraryWithSource:source options:options error:&error];
    if (library == nil) {
        tell(@{ @"library" : name, @"error" : words(error) });
        return nil;
    }
    tell(@{ @"library" : name, @"seconds" : @(since(begun)), @"functions" : @(library.functionNames.count) });
    return library;
}

// The values in the types that the kernel declares; an index that was not given keeps the kernel from being made.
static MTLFunctionConstantValues * constants(id<MTLFunction> function, NSDictionary * given, NSString ** missing) {
    MTLFunctionConstantValues * values = [MTLFunctionConstantValues new];
    for (MTLFunctionConstant * constant in function.functionConstantsDictionary.allValues) {
        NSNumber * value = given[[NSString stringWithFormat:@"%lu", (unsigned long) constant.index]];
        if (value == nil) {
            if (constant.required) {
                *missing = constant.name;
            }
            continue;
        }
        const int number = value.intValue;
        const short narrow = (short) number;
        const float real = value.floatValue;
        const bool truth = value.boolValue;
        const void * bytes = &number;
        switch (constant.type) {
            case MTLDataTypeBool:
                bytes = &truth;
                break;
            case MTLDataTypeShort:
            case MTLDataTypeUShort:
                bytes = &narrow;
                break;
            case MTLDataTypeFloat:
                bytes = &real;
                break;
            case MTLDataTypeInt:
            case MTLDataTypeUInt:
                break;
            default:
                *missing = [NSString stringWithFormat:@"%@, of type %lu", constant.name, (unsigned long) constant.type];
                continue;
        }
        [values setConstantValue:bytes type:constant.type atIndex:constant.index];
    }
    return values;
}

static id<MTLLibrary> library_of(NSDictionary * libraries, NSString * name, NSString * kernel) {
    if (name.length > 0) {
        return libraries[name];
    }
    for (id<MTLLibrary> library in libraries.allValues) {
        if ([library.functionNames containsObject:kernel]) {
            return library;
        }
    }
    return nil;
}

static void make(id<MTLDevice> device, NSDictionary * libraries, NSDictionary * asked, NSUInteger number) {
    NSString * kernel = asked[@"kernel"];
    NSDictionary * told = @{ @"pipeline" : @(number), @"kernel" : kernel };
    NSMutableDictionary * line = [told mutableCopy];
    NSError * error = nil;
    id<MTLLibrary> library = library_of(libraries, asked[@"library"], kernel);
    id<MTLFunction> plain = [library newFunctionWithName:kernel];
    if (plain == nil) {
        line[@"error"] = library == nil ? @"no library has it" : @"its library has no such function";
        tell(line);
        return;
    }
    NSString * missing = nil;
    MTLFunctionConstantValues * values = constants(plain, asked[@"constants"], &missing);
    if (missing != nil) {
        line[@"error"] = [NSString stringWithFormat:@"there is no value for its constant %@", missing];
        tell(line);
        return;
    }
    NSDate * begun = [NSDate date];
    id<MTLFunction> function = [library newFunctionWithName:kernel constantValues:values error:&error];
    id<MTLComputePipelineState> pipeline = nil;
    if (function != nil) {
        pipeline = [device newComputePipelineStateWithFunction:function error:&error];
    }
    if (pipeline == nil) {
        line[@"error"] = words(error);
    } else {
        line[@"seconds"] = @(since(begun));
        line[@"threads"] = @(pipeline.maxTotalThreadsPerThreadgroup);
        line[@"width"] = @(pipeline.threadExecutionWidth);
        line[@"memory"] = @(pipeline.staticThreadgroupMemoryLength);
    }
    tell(line);
}

int main(int count, const char ** arguments) {
    @autoreleasepool {
        if (count != 2) {
            fprintf(stderr, "compile_kernels REQUEST.json\n");
            return 2;
        }
        NSData * data = [NSData dataWithContentsOfFile:[NSString stringWithUTF8String:arguments[1]]];
        NSError * error = nil;
        NSDictionary * request = data ? [NSJSONSerialization JSONObjectWithData:data options:0 error:&error] : nil;
        if (request == nil) {
            fprintf(stderr, "%s: %s\n", arguments[1], words(error).UTF8String);
            return 2;
        }
        id<MTLDevice> device = MTLCreateSystemDefaultDevice();
        if (device == nil) {
            fprintf(stderr, "there is no Metal device in this context\n");
            return 3;
        }
        tell_device(device);
        NSMutableDictionary * libraries = [NSMutableDictionary new];
        for (NSDictionary * asked in request[@"libraries"]) {
            id<MTLLibrary> library = compile(device, asked);
            if (library != nil) {
                libraries[asked[@"name"]] = library;
            }
        }
        NSUInteger number = 0;
        for (NSDictionary * asked in request[@"pipelines"]) {
            @autoreleasepool {
                make(device, libraries, asked, number++);
            }
        }
    }
    return 0;
}
